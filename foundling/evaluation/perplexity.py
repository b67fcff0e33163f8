"""How well a language model predicts text: loss per token, perplexity, bits per byte, in total and by source.

The text is read as training reads it: documents one after the other, each followed by the end token, in rows of
`row_length` tokens. Every token of every document and every end token is predicted exactly once, a document's first
token from the end token before it (the very first document has one put before it). Bits are divided by the UTF-8 bytes
of the texts alone, so models with different tokenizers, and compressors, can be compared.
"""

# Shapes: N = packed tokens, M = scored tokens.

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.data.batch import Batch
from foundling.data.tokenize import tokenize
from foundling.models.base import Model
from foundling.objectives.causal import Causal
from foundling.tokenizers.base import Tokenizer

BATCH_TOKENS = 8192
"""Tokens in one forward pass."""


class Scorer(Protocol):
    """An objective, as far as it is used here."""

    def scores(self, model: Model, batch: Batch) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Score:
    """Sums over some text, and what follows from them. Sums of parts are sums of the whole: scores can be added."""

    nats: float = 0.0
    """Summed loss."""
    num_tokens: int = 0
    """Predicted tokens, end tokens included."""
    num_bytes: int = 0
    """UTF-8 bytes of the texts."""
    num_documents: int = 0
    num_unknown: int = 0
    """Tokens that stand for what the tokenizer does not know. The text cannot be told from them, so that bits per byte
    are too low where there are many."""

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.num_tokens

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that is larger than a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        return bits_per_byte(self.nats, self.num_bytes)

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.nats + other.nats,
            self.num_tokens + other.num_tokens,
            self.num_bytes + other.num_bytes,
            self.num_documents + other.num_documents,
            self.num_unknown + other.num_unknown,
        )

    def figures(self) -> dict[str, float]:
        """Everything as plain numbers, for JSON."""
        return {
            "bits_per_byte": self.bits_per_byte,
            "loss": self.loss,
            "perplexity": self.perplexity,
            "tokens": self.num_tokens,
            "bytes": self.num_bytes,
            "documents": self.num_documents,
            "unknown_tokens": self.num_unknown,
        }


@dataclass(frozen=True)
class Perplexity:
    """The answer of `perplexity`."""

    by_source: dict[str, Score] = field(default_factory=dict)
    """Source -> score, in the order in which sources first came."""

    @property
    def total(self) -> Score:
        return sum(self.by_source.values(), start=Score())


def bits_per_byte(nats: float, num_bytes: float) -> float:
    """Bits a byte from summed nats."""
    return nats / math.log(2) / num_bytes


def document_end(tokenizer: Tokenizer) -> int:
    """The token between documents, as in a token store: eos, else sep. UserError where there is neither."""
    end_id = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
    if end_id is None:
        raise UserError(
            "the tokenizer must have an eos or sep token: a document's first token is predicted from it",
            got="neither",
        )
    return end_id


def perplexity(
    model: Model,
    tokenizer: Tokenizer,
    texts: Iterable[tuple[str, str]],
    *,
    row_length: int,
    context: int = 0,
    objective: Scorer | None = None,
    batch_tokens: int = BATCH_TOKENS,
    workers: int | None = None,
) -> Perplexity:
    """Scores texts, given as (source, text), in one pass and in bounded memory; empty texts are left out.

    row_length: tokens that the model reads at once; at most the positions it has. context: so many tokens at the
    beginning of each row but the first were scored in the row before and are only read; 0 (rows side by side) costs
    least and is what a training loop sees, row_length - 1 gives every token all the context that the model can take.
    objective: gives losses; None: causal. workers: tokenizing processes, see `tokenize`.
    UserError: impossible settings, no text at all, a loss that is not finite.
    """
    if row_length < 1 or not 0 <= context < row_length:
        raise UserError("context must lie in 0 ... row_length - 1", got=f"{context} with row_length {row_length}")
    end_id = document_end(tokenizer)
    sources: dict[str, int] = {}
    bytes_of: dict[int, int] = {}
    documents_of: dict[int, int] = {}
    unknown_of: dict[int, int] = {}

    def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(ids with their end tokens, the source of each) of a few documents at a time."""
        written = ((source, text) for source, text in texts if text)
        for batch in tokenize(written, tokenizer, workers=workers):
            ids = np.insert(batch.ids.astype(np.int64), np.cumsum(batch.lengths_tokens), end_id)
            for source in batch.tags:
                sources.setdefault(source, len(sources))
            numbers = np.array([sources[source] for source in batch.tags], dtype=np.int64)
            for number, length in zip(numbers.tolist(), batch.lengths_bytes.tolist(), strict=True):
                bytes_of[number] = bytes_of.get(number, 0) + length
                documents_of[number] = documents_of.get(number, 0) + 1
            sources_M = np.repeat(numbers, batch.lengths_tokens + 1)
            for number in sources_M[tokenizer.unknown(ids)].tolist():
                unknown_of[number] = unknown_of.get(number, 0) + 1
            yield ids, sources_M

    device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
    nats, tokens = np.zeros(0), np.zeros(0, dtype=np.int64)
    scorer = objective or Causal()
    for window in _windows(stream(), end_id, row_length, context, max(1, batch_tokens // row_length)):
        losses_M = token_losses(scorer, model, window.batch.to(device)).double().cpu().numpy()
        if len(nats) < len(sources):
            grown = len(sources) - len(nats)
            nats, tokens = np.append(nats, np.zeros(grown)), np.append(tokens, np.zeros(grown, dtype=np.int64))
        nats += np.bincount(window.sources_M, losses_M, minlength=len(nats))
        tokens += np.bincount(window.sources_M, minlength=len(tokens))
    found = {
        s: Score(float(nats[i]), int(tokens[i]), bytes_of[i], documents_of[i], unknown_of.get(i, 0))
        for s, i in sources.items()
    }
    if not found:
        raise UserError("there must be text to score", got="no document, or empty ones only")
    return Perplexity(found)


def score_batches(model: Model, batches: Iterable[Batch], objective: Scorer, *, num_bytes: int) -> Score:
    """The score of rows that come from a token store: what the training loop evaluates by.

    batches: as `objective.collate` makes them, on the model's device. num_bytes: UTF-8 bytes of the text that their
    targets stand for, which the store knows.
    """
    nats, num_tokens = 0.0, 0
    for batch in batches:
        nats += float(token_losses(objective, model, batch).double().sum())
        num_tokens += batch.num_targets
    if num_tokens == 0 or num_bytes <= 0:
        raise UserError("there must be tokens and bytes to score", got=f"{num_tokens} tokens, {num_bytes} bytes")
    return Score(nats, num_tokens, num_bytes)


@torch.no_grad()
def token_losses(objective: Scorer, model: Model, batch: Batch) -> Tensor:
    """The objective's losses, fp32 [M]; a UserError where one is not finite, for a sum would hide which."""
    losses_M = objective.scores(model, batch)["loss"]
    if not torch.isfinite(losses_M).all():
        bad = int((~torch.isfinite(losses_M)).sum())
        raise UserError(
            "the loss of every token must be finite",
            got=f"NaN or infinity for {bad} of {batch.num_targets} tokens",
            do="the model's weights are damaged, or its numbers overflow: try fp32",
        )
    return losses_M


@dataclass(frozen=True)
class _Window:
    batch: Batch
    sources_M: np.ndarray


def _windows(
    stream: Iterable[tuple[np.ndarray, np.ndarray]], end_id: int, row_length: int, context: int, rows_per_batch: int
) -> Iterator[_Window]:
    """Cuts the stream into rows that overlap by `context` tokens, and gathers rows into batches.

    `kept` holds the tokens from the next row's first on; token i of it is predicted at position i - 1.
    """
    kept, kept_sources = np.array([end_id]), np.array([-1])
    num_read_only = 0  # tokens at the beginning of the next row whose successors were scored already
    for ids, sources in stream:
        kept, kept_sources = np.append(kept, ids), np.append(kept_sources, sources)
        while len(kept) > row_length:
            rows: list[tuple[np.ndarray, np.ndarray, int]] = []
            while len(kept) > row_length and len(rows) < rows_per_batch:
                rows.append((kept[: row_length + 1], kept_sources[1 : row_length + 1], num_read_only))
                step = row_length - context
                kept, kept_sources, num_read_only = kept[step:], kept_sources[step:], context
            yield _gather(rows)
    if len(kept) - 1 > num_read_only:
        yield _gather([(kept, kept_sources[1:], num_read_only)])


def _gather(rows: list[tuple[np.ndarray, np.ndarray, int]]) -> _Window:
    """Rows of T + 1 tokens, the sources of the last T, and how many of these T are only read."""
    inputs = [row[:-1] for row, _, _ in rows]
    lengths = [len(row) for row in inputs]
    bounds = np.cumsum([0, *lengths])
    index_M = np.concatenate(
        [np.arange(start + skip, end) for start, end, (_, _, skip) in zip(bounds, bounds[1:], rows, strict=False)]
    )
    return _Window(
        Batch(
            tokens_N=torch.from_numpy(np.concatenate(inputs)),
            positions_N=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
            bounds_R1=torch.from_numpy(bounds.astype(np.int32)),
            max_row_length=max(lengths),
            targets_M=torch.from_numpy(np.concatenate([row[skip + 1 :] for row, _, skip in rows])),
            target_index_M=torch.from_numpy(index_M),
        ),
        np.concatenate([sources[skip:] for _, sources, skip in rows]),
    )
