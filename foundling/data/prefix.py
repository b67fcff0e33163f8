"""Rows of text that begin with a prefix: what a prefix language model reads whole before it writes on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundling.data.order import Weights
from foundling.data.rows import Row, Rows, Stream


@dataclass(frozen=True)
class PrefixRow(Row):
    """A row whose first tokens see each other."""

    prefix: int = 0
    """How many tokens, 0 to T - 1 of the T that are read."""


class PrefixRows:
    """`rows[i]` is sample i of `Rows` with a prefix whose share of the row the seed and i decide."""

    def __init__(
        self,
        streams: Sequence[Stream],
        weights: Weights | None,
        *,
        row_length: int,
        shares: tuple[float, float],
        seed: int,
    ) -> None:
        """shares: least and largest share of the row that is prefix, uniform between, 0 <= least <= largest < 1."""
        self.row_length = row_length
        self._rows = Rows(streams, weights, row_length=row_length, extra_tokens=1, seed=seed)
        self.rows_per_stream = self._rows.rows_per_stream
        self._shares, self._seed = shares, seed

    @property
    def num_rows(self) -> int:
        return self._rows.num_rows

    def __getitem__(self, sample: int) -> PrefixRow:
        row = self._rows[sample]
        rng = np.random.default_rng([self._seed % 2**64, sample])
        prefix = min(int(rng.uniform(*self._shares) * self.row_length), self.row_length - 1)
        return PrefixRow(row.sample, row.source, row.start, row.tokens, prefix=prefix)
