"""Permutation language modelling (Yang et al. 2019, arXiv:1906.08237): some tokens of a row are predicted one after
another in a random order, each from all tokens that are not predicted and from those predicted before it.

Who sees whom is the original's: the context sees the context, a target the context and the targets before it, and the
tokens that are never predicted are context. The content stream reads the tokens themselves, as in the paper;
transformers' DataCollatorForPermutationLanguageModeling puts [MASK] there, so its later targets do not read the
earlier ones.
"""

# Shapes: R = rows, N = packed tokens, M = targets, T = tokens of a text.

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.units import Count
from foundling.data.batch import Batch
from foundling.data.factorized import Factorization, FactorizedRow, FactorizedRows
from foundling.data.order import Weights
from foundling.data.rows import Row, Stream
from foundling.models.base import Model
from foundling.objectives._tokens import token_losses, token_nll
from foundling.objectives.base import Losses, Scale
from foundling.optim.losses.base import shape_of
from foundling.tokenizers.base import Tokenizer


class Config(PartConfig):
    kind: str = "permutation"
    """Name of the part."""
    loss: Annotated[PartConfig, Part("optim.losses")] | None = None
    """How wrong tokens are weighed in training: label_smoothing, focal, or cross_entropy with a z_loss; None: cross
    entropy. What is told of validation is always cross entropy."""
    one_in: Annotated[int, Field(ge=1)] = 6
    """K: one in so many tokens of a row is predicted, the rest is context; 1: all are."""
    max_span: Annotated[int, Field(ge=1)] = 5
    """Predicted tokens stand in spans of 1 to so many."""
    window: Annotated[Count, Field(ge=1)] | None = None
    """All targets of one window of so many tokens are predicted before those of the next; None: the row is one."""
    memory: Annotated[Count, Field(ge=0)] = 0
    """Tokens before each row that it sees too. They are read with the weights of the moment, without gradient."""
    bidirectional: bool = False
    """Half of the rows have what follows them as memory, instead of what comes before."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bidirectional and not self.memory:
            raise ValueError("bidirectional is about memory: give memory a length, such as 128")
        return self

    def build(self, tokenizer: Tokenizer) -> "Permutation":
        return Permutation(self, tokenizer)


class Permutation:
    predicts_text = False
    pseudo_likelihood = True

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        self._shape = shape_of(config.loss)
        self._config = config
        self._end_id = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
        self._factorization = Factorization(
            config.one_in, config.max_span, config.window, frozenset(tokenizer.special_ids)
        )

    def samples(
        self, streams: Sequence[Stream], weights: Weights | None, *, row_length: int, seed: int
    ) -> FactorizedRows:
        """Rows of T tokens, each with its order and its memory."""
        return FactorizedRows(
            streams, weights, self._factorization.ranks, row_length=row_length, memory_tokens=self._config.memory,
            both_sides=self._config.bidirectional, seed=seed,
        )  # fmt: skip

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows in the order of their text; what is predicted, and in which order, is in their ranks."""
        found = [row for row in rows if isinstance(row, FactorizedRow)]
        assert len(found) == len(rows), "rows come from `samples`"
        return self._batch([row.tokens for row in found], [_ranks_of(row) for row in found], found)

    def loss(self, model: Model, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        return token_losses("permutation", model(batch), batch, scale, compiled, self._shape)

    def scores(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        return {"loss": token_nll(model(batch), batch)}

    def text_rows(self, length: int) -> tuple[int, int]:
        """(rows, tokens of a row) that a text of this many tokens becomes."""
        return length, length + 2

    def text_batch(self, texts: Sequence[np.ndarray], asked: Sequence[range] | None = None) -> Batch:
        """T rows for each text [T]: row i predicts token i from all others, an end token before and after the text.
        The losses add up to the negative pseudo-log-likelihood (Salazar et al. 2020, arXiv:1910.14659); `sources_R`
        says which text a row is of. asked: which tokens of each text; None: all."""
        framed, ranks, owners = [], [], []
        for number, text in enumerate(texts):
            row = np.concatenate([[self._end()], text, [self._end()]])
            places = range(len(text)) if asked is None else asked[number]
            framed += [row] * len(places)
            ranks += list(np.eye(len(text), len(row), k=1, dtype=np.int64)[places.start : places.stop])
            owners += [number] * len(places)
        return replace(self._batch(framed, ranks), sources_R=tuple(owners))

    def _end(self) -> int:
        if self._end_id is None:
            raise UserError("the tokenizer must have an eos or sep token, which stands before a text", got="neither")
        return self._end_id

    def _batch(self, tokens: list[np.ndarray], ranks: list[np.ndarray], rows: Sequence[FactorizedRow] = ()) -> Batch:
        lengths = [len(row) for row in tokens]
        beside = [(row.memory, row.memory_follows) for row in rows] or [(None, False)] * len(tokens)
        segments = [self._segments(row, own, *side) for row, own, side in zip(tokens, ranks, beside, strict=True)]
        ranks_N = torch.from_numpy(np.concatenate(ranks))
        tokens_N = torch.from_numpy(np.concatenate(tokens))
        index_M = ranks_N.nonzero()[:, 0]
        return Batch(
            tokens_N=tokens_N,
            positions_N=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
            bounds_R1=_bounds(lengths),
            max_row_length=max(lengths),
            targets_M=tokens_N[index_M],
            target_index_M=index_M,
            segments_N=_joined([own for own, _ in segments]),
            samples_R=tuple(row.sample for row in rows),
            sources_R=tuple(row.source for row in rows),
            ranks_N=ranks_N,
            memory=_memory(rows, [other for _, other in segments]),
        )

    def _segments(
        self, tokens_T: np.ndarray, ranks_T: np.ndarray, memory_W: np.ndarray | None, follows: bool
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Which document each token of a row and of its memory belongs to, counted from the first of them. An end
        token that is itself to be predicted ends none: the segments would tell where it stands."""
        if self._end_id is None:
            return None, None
        memory_W = tokens_T[:0] if memory_W is None else memory_W
        ends = [(tokens_T == self._end_id) & (ranks_T == 0), memory_W == self._end_id]
        is_end = np.concatenate(ends if follows else ends[::-1])
        segments = is_end.cumsum() - is_end  # a document's end token is its own
        at = len(tokens_T) if follows else len(memory_W)
        return (segments[:at], segments[at:]) if follows else (segments[at:], segments[:at])


def _ranks_of(row: FactorizedRow) -> np.ndarray:
    assert row.ranks is not None
    return row.ranks


def _memory(rows: Sequence[FactorizedRow], segments: list[np.ndarray | None]) -> Batch | None:
    """The rows' memory as a batch of its own, with positions that tell where it stands."""
    found = [row.memory for row in rows if row.memory is not None]
    if not found:
        return None
    assert len(found) == len(rows), "all rows have memory or none"
    lengths = [len(memory) for memory in found]
    starts = [len(row.tokens) if row.memory_follows else -n for row, n in zip(rows, lengths, strict=True)]
    return Batch(
        tokens_N=torch.from_numpy(np.concatenate(found)),
        positions_N=torch.from_numpy(np.concatenate([s + np.arange(n) for s, n in zip(starts, lengths, strict=True)])),
        bounds_R1=_bounds(lengths),
        max_row_length=max(lengths),
        targets_M=torch.zeros(0, dtype=torch.int64),
        target_index_M=torch.zeros(0, dtype=torch.int64),
        segments_N=_joined(segments),
    )


def _bounds(lengths: list[int]) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _joined(parts: list[np.ndarray | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.from_numpy(np.concatenate(known)) if known else None
