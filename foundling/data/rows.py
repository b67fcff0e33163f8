"""Samples of token streams in the order that the seed gives: here rows of a fixed length, cut side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from foundling.core.errors import UserError
from foundling.data.order import Order, Weights


class Stream(Protocol):
    """One long run of token ids: a split of a token store."""

    @property
    def num_tokens(self) -> int: ...

    def read(self, start: int, length: int) -> np.ndarray:
        """Token ids [start, start + length), int64."""
        ...


@dataclass(frozen=True)
class Row:
    """One sample of the data order."""

    sample: int
    """Its number in the order."""
    source: int
    """Which stream it comes from."""
    start: int
    """Its first token's place in that stream."""
    tokens: np.ndarray
    """Token ids, int64."""
    segments: np.ndarray | None = None
    """Segment (sentence A or B) of each token, int64; None where the objective has none."""
    label: int | None = None
    """What is true of the whole row (does B follow A), where the objective asks."""
    key: int = 0
    """Seeds what chance decides when the row is collated: a function of the run's seed and the sample's number."""
    lies: tuple[tuple[int, int], ...] = ()
    """Stretches of the stream that its text is read from, (place of the first token, how many) each, where they are
    not `tokens` from `start`."""

    @property
    def stretches(self) -> tuple[tuple[int, int], ...]:
        """Where its text lies in the stream, so that it can be looked up: (place of the first token, how many)."""
        return self.lies or ((self.start, len(self.tokens)),)

    @property
    def num_tokens(self) -> int:
        """How much of it a model reads, about: what micro-batches are measured by."""
        return len(self.tokens)


class Samples(Protocol):
    """An endless order of rows, addressed by number: `samples[i]` is a function of the seed and i alone."""

    row_length: int
    """Tokens that a row holds at most, those not counted that only serve as targets."""

    rows_per_stream: list[int]
    """Rows of one epoch of each stream."""

    @property
    def num_rows(self) -> int:
        """Rows of one epoch of all streams."""
        ...

    def __getitem__(self, sample: int) -> Row: ...


class Rows:
    """`rows[i]` is sample i of an endless order over several streams, mixed by weight.

    A row holds `row_length` tokens and `extra_tokens` more (the targets of a causal model reach one further); rows of
    a stream do not overlap but for those, and documents follow one another with their end token between.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        weights: Weights | None,
        *,
        row_length: int,
        extra_tokens: int,
        seed: int,
    ) -> None:
        """weights: of the streams, any positive scale, or how they change; None: as many samples as it has tokens."""
        self.row_length, self.extra_tokens = row_length, extra_tokens
        self._streams = list(streams)
        self.rows_per_stream = [max(0, (s.num_tokens - extra_tokens) // row_length) for s in streams]
        for number, rows in enumerate(self.rows_per_stream):
            if rows == 0:
                raise UserError(
                    f"each training source must hold at least one row of {row_length + extra_tokens} tokens",
                    got=f"{self._streams[number].num_tokens} tokens in source {number}",
                    do="give more text or a smaller train.sequence_length",
                )
        self._order = Order(self.rows_per_stream, self.rows_per_stream if weights is None else weights, seed)

    @property
    def num_rows(self) -> int:
        """Rows of all streams together: one epoch."""
        return sum(self.rows_per_stream)

    def __getitem__(self, sample: int) -> Row:
        source, row = self._order[sample]
        start = row * self.row_length
        tokens = self._streams[source].read(start, self.row_length + self.extra_tokens)
        return Row(sample, source, start, tokens)
