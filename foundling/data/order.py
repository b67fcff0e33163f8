"""The order of the data: sample i is a function of the seed and i, so the only state is one integer.

Any number of workers, ranks or restarts sees the same order, and nothing is shuffled in memory: a Feistel network
over the index (Luby & Rackoff 1988, SIAM J. Comput. 17(2)) permutes each epoch, cycle-walking to sizes that are no
power of four (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from foundling.data.mixture import Phase

Weights = Sequence[float] | Sequence[Phase]
"""Shares of the sources, any scale, or how they change while a run goes on."""

_ROUNDS = 6  # 4 are enough for indistinguishability; 6 keep tiny domains well mixed too


class Permutation:
    """A pseudo-random bijection of 0..size-1 that needs no memory: `permutation[i]` is computed."""

    def __init__(self, size: int, *key: int | str) -> None:
        assert size > 0, size
        self.size = size
        half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._mask = (1 << half_bits) - 1
        self._half_bits = half_bits
        digest = hashlib.blake2b(repr((size, *key)).encode(), digest_size=8 * _ROUNDS).digest()
        self._keys = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") | 1 for i in range(_ROUNDS)]

    def __getitem__(self, index: int) -> int:
        assert 0 <= index < self.size, (index, self.size)
        while True:
            left, right = index >> self._half_bits, index & self._mask
            for key in self._keys:
                mixed = ((right + key) * 0x9E3779B97F4A7C15 ^ key) & 0xFFFFFFFFFFFFFFFF
                mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
                left, right = right, left ^ ((mixed >> 32) & self._mask)
            index = left << self._half_bits | right
            if index < self.size:
                return index


class Order:
    """Which row of which source sample i is.

    Sources are mixed by their shares: from a phase's first sample on, any n samples hold a source's share of n to
    within one block's rounding. Each source is passed through in whole epochs, each in its own order.
    """

    _BLOCK = 256

    def __init__(self, rows_per_source: Sequence[int], weights: Weights, seed: int) -> None:
        """rows_per_source: rows of each source, at least 1. weights: positive, any scale; or how they change from
        phase to phase. seed: any integer."""
        first = weights[0]
        phases = list(weights) if isinstance(first, Phase) else [Phase(0, tuple(weights))]  # type: ignore[arg-type]
        assert all(isinstance(phase, Phase) and len(phase.shares) == len(rows_per_source) for phase in phases)
        assert all(n > 0 for n in rows_per_source), rows_per_source
        self.seed = seed
        self._rows = list(rows_per_source)
        self._phases: list[Phase] = phases  # type: ignore[assignment]
        self._starts = [phase.first for phase in self._phases]
        assert self._starts[0] == 0
        assert self._starts == sorted(set(self._starts)), self._starts
        self._before = [[0] * len(self._rows)]  # rows of each source drawn before each phase
        for old, new in pairwise(self._phases):
            counts = _split(new.first - old.first, old.shares)
            self._before.append([a + b for a, b in zip(self._before[-1], counts, strict=True)])
        self._epochs: dict[tuple[int, int], Permutation] = {}
        self._block: tuple[tuple[int, int], list[tuple[int, int]]] = ((-1, -1), [])

    def __getitem__(self, sample: int) -> tuple[int, int]:
        """(source, row) of a sample; row counts within the source."""
        if len(self._rows) == 1:
            return 0, self._row(0, sample)
        number = bisect_right(self._starts, sample) - 1
        block, within = divmod(sample - self._starts[number], self._BLOCK)
        if self._block[0] != (number, block):
            self._block = ((number, block), self._draw(number, block))
        source, nth = self._block[1][within]
        return source, self._row(source, nth)

    def drawn(self, num_samples: int) -> list[int]:
        """How many of the first `num_samples` each source gives (a block's samples all counted at its end)."""
        number = bisect_right(self._starts, num_samples) - 1
        counts = _split(num_samples - self._starts[number], self._phases[number].shares)
        return [a + b for a, b in zip(self._before[number], counts, strict=True)]

    def _draw(self, number: int, block: int) -> list[tuple[int, int]]:
        first = self._starts[number] + block * self._BLOCK
        end = first + self._BLOCK
        if number + 1 < len(self._starts):
            end = min(end, self._starts[number + 1])
        shares, base = self._phases[number].shares, self._before[number]
        before, after = (_split(n - self._starts[number], shares) for n in (first, end))
        slots = [(s, base[s] + n) for s in range(len(base)) for n in range(before[s], after[s])]
        key = ("block", block) if number == 0 else ("phase", number, block)
        mixed = Permutation(len(slots), self.seed, *key)
        return [slots[mixed[i]] for i in range(len(slots))]

    def _row(self, source: int, nth: int) -> int:
        epoch, index = divmod(nth, self._rows[source])
        key = (source, epoch)
        if key not in self._epochs:
            self._epochs = {k: v for k, v in self._epochs.items() if k[0] != source or k[1] == epoch - 1}
            self._epochs[key] = Permutation(self._rows[source], self.seed, "epoch", source, epoch)
        return self._epochs[key][index]


def _split(number: int, shares: Sequence[float]) -> list[int]:
    """`number` samples over the sources by share, exactly.

    Split one source at a time from what is left, so that each count only grows with `number`.
    """
    left, share_left, counts = number, sum(shares), [0] * len(shares)
    used = [source for source, share in enumerate(shares) if share > 0]
    for source in used[:-1]:
        taken = min(left, round(left * shares[source] / share_left))
        counts[source] = taken
        left, share_left = left - taken, share_left - shares[source]
    counts[used[-1]] = left
    return counts
