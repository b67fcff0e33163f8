"""Rows with a factorization order: which of their tokens are predicted, and in which order (Yang et al. 2019,
arXiv:1906.08237, sections 2.2 and 2.3), and the text beside each row that is its memory (section 2.4)."""

# Shapes: T = tokens of a row, M = its targets, W = tokens of its memory.

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foundling.core.errors import UserError
from foundling.data.order import Weights
from foundling.data.rows import Row, Rows, Stream

Draw = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""A row's tokens [T] to their ranks, int64 [T]."""


@dataclass(frozen=True)
class Factorization:
    """How targets are chosen and ordered."""

    one_in: int
    """K: T // K tokens of a row are targets (partial prediction), as many in each row."""
    max_span_tokens: int
    """Targets stand in spans of 1 to so many tokens, each length as likely, as the paper says (its published code
    draws length n with odds of 1/n). Spans may touch."""
    window_tokens: int | None
    """Targets of one window of the row all come before those of the next; None: the whole row is one window."""
    context_ids: frozenset[int]
    """Tokens that are never targets (the original's functional tokens): they are always context."""

    def ranks(self, tokens_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """0 for the context; 1, 2, ... for the targets in the order in which they are predicted. int64 [T].

        How many targets there are is a function of T, but for a row that has fewer tokens that can be one. Each of
        these is a target as likely as any other: spans lie uniformly on a ring of them. (The original and
        transformers' collator give each span K times its length to lie in, from the row's start, so that the number
        varies and the row's end gets less.)
        """
        free_T = np.ones(len(tokens_T), dtype=bool)
        for token_id in self.context_ids:  # a handful: ten times as fast as numpy's isin
            free_T &= tokens_T != token_id
        free = np.flatnonzero(free_T)
        num_targets = min(max(1, len(tokens_T) // self.one_in), len(free))
        ranks_T = np.zeros(len(tokens_T), dtype=np.int64)
        if num_targets:
            chosen = free[self._spans(len(free), num_targets, rng)]
            window = chosen // self.window_tokens if self.window_tokens else np.zeros_like(chosen)
            order = np.lexsort((rng.random(num_targets), window))
            ranks_T[chosen[order]] = np.arange(1, num_targets + 1)
        return ranks_T

    def _spans(self, num_places: int, num_targets: int, rng: np.random.Generator) -> np.ndarray:
        """Places of the targets among `num_places`, rising, int64 [M]."""
        lengths = rng.integers(1, self.max_span_tokens + 1, num_targets)
        ends = np.minimum(lengths.cumsum(), num_targets)
        lengths = np.diff(ends[: int(np.argmax(ends == num_targets)) + 1], prepend=0)
        rng.shuffle(lengths)  # the last one, which may be cut short, anywhere
        num_kept, num_spans = num_places - num_targets, len(lengths)
        cuts = np.sort(rng.integers(0, num_kept + 1, num_spans - 1))
        gaps = np.diff(cuts, prepend=0, append=num_kept)
        starts = np.concatenate([[0], (lengths + gaps).cumsum()[:-1]])
        within = np.arange(num_targets) - np.repeat(lengths.cumsum() - lengths, lengths)
        places = np.repeat(starts, lengths) + within
        return np.sort((places + rng.integers(num_places)) % num_places)


@dataclass(frozen=True)
class FactorizedRow(Row):
    """A row with its order, and with memory if the run has one."""

    ranks: np.ndarray | None = None
    """0 for the context, 1, 2, ... for the targets, int64 [T]."""
    memory: np.ndarray | None = None
    """The text beside the row, in its own order, int64 [W]; None: no memory."""
    memory_follows: bool = False
    """Whether the memory stands after the row; else before."""


class FactorizedRows:
    """`rows[i]` is sample i; what chance decides in it is a function of the seed and i.

    Memory needs no state: a row brings the text beside it, which the model reads again. So that every row has memory,
    a source's first `memory_tokens` are never a row, nor its last ones where rows have memory on both sides.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        weights: Weights | None,
        draw: Draw,
        *,
        row_length: int,
        memory_tokens: int,
        both_sides: bool,
        seed: int,
    ) -> None:
        """both_sides: half of the rows have what follows them as memory instead of what comes before."""
        self.row_length, self._draw, self._seed = row_length, draw, seed
        self._streams, self._memory, self._both = list(streams), memory_tokens, both_sides
        least = row_length + memory_tokens * (1 + both_sides)
        for number, stream in enumerate(streams):
            if stream.num_tokens < least:
                raise UserError(
                    f"each training source must hold at least one row with its memory: {least} tokens",
                    got=f"{stream.num_tokens} tokens in source {number}",
                    do="give more text, a smaller train.sequence_length or a smaller objective.memory",
                )
        inner = [_Inner(s, memory_tokens, memory_tokens * both_sides) for s in streams]
        self._rows = Rows(inner, weights, row_length=row_length, extra_tokens=0, seed=seed)
        self.rows_per_stream = self._rows.rows_per_stream

    @property
    def num_rows(self) -> int:
        return self._rows.num_rows

    def __getitem__(self, sample: int) -> FactorizedRow:
        row = self._rows[sample]
        rng = np.random.default_rng([self._seed % 2**64, sample])
        follows = self._both and bool(rng.integers(2))
        start = row.start + self._memory
        found = FactorizedRow(
            sample, row.source, start, row.tokens, ranks=self._draw(row.tokens, rng), memory_follows=follows
        )
        if not self._memory:
            return found
        beside = start + self.row_length if follows else start - self._memory
        return replace(found, memory=self._streams[row.source].read(beside, self._memory))


@dataclass(frozen=True)
class _Inner:
    """A stream without its first and last tokens."""

    stream: Stream
    before: int
    after: int

    @property
    def num_tokens(self) -> int:
        return self.stream.num_tokens - self.before - self.after

    def read(self, start: int, length: int) -> np.ndarray:
        return self.stream.read(self.before + start, length)
