"""How likely whole texts are to a model of any family, one number a text.

A decoder gives the log-probability of a text. A masked model has none; what stands for it is the pseudo-log-likelihood,
the sum of each token's log-probability given all others (Salazar et al. 2020, arXiv:1910.14659), one row for each
token; so it does for a permutation model, which seldom sees a text with nothing behind it while it trains. Which it is,
the objective says by the batches that it makes.
"""

# Shapes: N = packed tokens, R = rows, M = targets.

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from foundling.core.errors import UserError
from foundling.data.batch import Batch
from foundling.evaluation.perplexity import Scorer, token_losses
from foundling.models.base import Model

BATCH_TOKENS = 8192
"""Tokens in one forward pass."""


class TextScorer(Scorer, Protocol):
    """An objective that can say how likely a text is."""

    pseudo_likelihood: bool
    """Whether `text_batch` asks for each token given all others, so its sum is no probability."""

    def text_rows(self, length: int) -> tuple[int, int]:
        """(rows, tokens of a row) that a text of this many tokens becomes."""
        ...

    def text_batch(self, texts: Sequence[np.ndarray], asked: Sequence[range] | None = None) -> Batch:
        """Rows whose targets' losses add up to the negative (pseudo-)log-likelihood of each text; `sources_R` says
        which text a row is of, counted from 0. asked: where a text has a row for each token, which of these tokens;
        None: all."""
        ...


def log_likelihoods(
    model: Model,
    objective: TextScorer,
    texts: Sequence[Sequence[int]],
    *,
    max_positions: int,
    batch_tokens: int = BATCH_TOKENS,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Log-likelihood of each text (token ids, at least one), nats, fp64 [texts].

    Texts of like length are computed together; the order of the answers is that of the texts. names: where each text
    stands, for errors; None: they are counted from 1. UserError: an empty text, one that does not fit the model's
    positions, a loss that is not finite.
    """
    for number, text in enumerate(texts):
        name = f"text {number + 1}" if names is None else names[number]
        if not len(text):
            raise UserError("a text must have a token to be scored", got=f"none in {name}")
        length = objective.text_rows(len(text))[1]
        if length > max_positions:
            raise UserError(
                f"a text and what frames it must fit the model's {max_positions} positions",
                got=f"{length} tokens in {name}",
            )
    device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
    found = np.zeros(len(texts))
    for parts in _batches([len(text) for text in texts], objective, batch_tokens):
        chosen = [number for number, _ in parts]
        given = [np.asarray(texts[number], dtype=np.int64) for number in chosen]
        batch = objective.text_batch(given, [asked for _, asked in parts] if objective.pseudo_likelihood else None)
        losses_M = token_losses(objective, model, batch.to(device)).double().cpu().numpy()
        places_M = torch.arange(len(losses_M)) if batch.target_index_M is None else batch.target_index_M
        rows_M = torch.searchsorted(batch.bounds_R1[1:].long(), places_M, right=True).numpy()
        owners_M = np.asarray(batch.sources_R)[rows_M]
        np.subtract.at(found, chosen, np.bincount(owners_M, losses_M, minlength=len(chosen)))
    return found


def _batches(lengths: Sequence[int], objective: TextScorer, batch_tokens: int) -> Iterator[list[tuple[int, range]]]:
    """Numbers of texts and which of their tokens are asked for, texts of like length together, so many that their rows
    hold at most `batch_tokens`, or one row."""
    chosen: list[tuple[int, range]] = []
    size = 0
    for number in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        rows, length = objective.text_rows(lengths[number])
        most = max(1, batch_tokens // length)
        for first in range(0, rows, most):
            part = range(first, min(rows, first + most))
            if chosen and size + len(part) * length > batch_tokens:
                yield chosen
                chosen, size = [], 0
            chosen.append((number, part))
            size += len(part) * length
    if chosen:
        yield chosen
