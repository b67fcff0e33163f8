"""The n-gram baseline of a model: trained on the same tokens, cut by the same tokenizer."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.data.tokenize import tokenize
from foundling.evaluation.ngram import Ngram
from foundling.evaluation.perplexity import document_end
from foundling.evaluation.training_text import training_streams
from foundling.tokenizers.base import Tokenizer

MAX_TOKENS = 50_000_000
"""Tokens that it is trained on at most: an n-gram of order 5 takes up to 80 bytes a token while it is counted."""


def train_baseline(
    tokenizer: Tokenizer, *, run: Path | None = None, texts: Iterable[str] = (), order: int = 5
) -> Ngram:
    """From the token stores of a run folder, which the run was trained on, or from texts.

    UserError: no stores in the run folder, stores of another tokenizer, no text.
    """
    parts = _of_run(run, tokenizer) if run is not None else _of_texts(texts, tokenizer)
    ids = np.concatenate([np.zeros(0, dtype=np.int64), *_capped(parts)])
    if not len(ids):
        raise UserError("the n-gram baseline needs text to be trained on", got="none")
    found = Ngram.train(ids, tokenizer.vocab_size, order)
    logger.info("n-gram baseline: order %d, %s tokens, %s n-grams", order, f"{len(ids):,}", f"{found.num_ngrams:,}")
    return found


def _of_run(run: Path, tokenizer: Tokenizer) -> Iterable[np.ndarray]:
    streams = training_streams(run, tokenizer)
    if not streams:
        raise UserError(
            f"the n-gram baseline is trained on a run's token stores; {run} must have some",
            got="none",
            do="name training text: --baseline-data PATH",
        )
    for stream in streams:
        for start in range(0, stream.num_tokens, 1 << 20):
            yield stream.read(start, min(1 << 20, stream.num_tokens - start))


def _of_texts(texts: Iterable[str], tokenizer: Tokenizer) -> Iterable[np.ndarray]:
    end_id = document_end(tokenizer)
    for batch in tokenize((("", text) for text in texts), tokenizer):
        yield np.insert(batch.ids.astype(np.int64), np.cumsum(batch.lengths_tokens), end_id)


def _capped(parts: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    left = MAX_TOKENS
    for part in parts:
        yield part[:left]
        left -= len(part)
        if left <= 0:
            logger.warning("n-gram baseline: trained on the first %s tokens", f"{MAX_TOKENS:,}")
            return
