"""The order of the data: sample i is a function of the seed and i, so the only state is one integer.

Any number of workers, ranks or restarts sees the same order, and nothing is shuffled in memory: a Feistel network
over the index (Luby & Rackoff 1988, SIAM J. Comput. 17(2)) permutes each epoch, cycle-walking to sizes that are no
power of four (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

import hashlib

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

    Sources are mixed by weight: among any first n samples, source s holds its share of n to within one block's
    rounding. Each source is passed through in whole epochs, each in its own order.
    """

    _BLOCK = 256

    def __init__(self, rows_per_source: list[int], weights: list[float], seed: int) -> None:
        """rows_per_source: rows of each source, at least 1. weights: positive, any scale. seed: any integer."""
        assert len(rows_per_source) == len(weights) > 0
        assert all(n > 0 for n in rows_per_source), rows_per_source
        total = sum(weights)
        self.seed = seed
        self._rows = rows_per_source
        self._shares = [w / total for w in weights]
        self._epochs: dict[tuple[int, int], Permutation] = {}
        self._block: tuple[int, list[tuple[int, int]]] = (-1, [])

    def __getitem__(self, sample: int) -> tuple[int, int]:
        """(source, row) of a sample; row counts within the source."""
        if len(self._rows) == 1:
            return 0, self._row(0, sample)
        number, within = divmod(sample, self._BLOCK)
        if self._block[0] != number:
            self._block = (number, self._draw(number))
        source, nth = self._block[1][within]
        return source, self._row(source, nth)

    def _drawn_before(self, number: int) -> list[int]:
        """How many samples of each source all blocks before `number` hold.

        Split one source at a time from what is left, so that each count only grows and the counts add up exactly.
        """
        left, share_left, counts = number * self._BLOCK, 1.0, []
        for share in self._shares[:-1]:
            taken = min(left, round(left * share / share_left))
            counts.append(taken)
            left, share_left = left - taken, share_left - share
        return [*counts, left]

    def _draw(self, number: int) -> list[tuple[int, int]]:
        before, after = self._drawn_before(number), self._drawn_before(number + 1)
        slots = [(s, n) for s in range(len(before)) for n in range(before[s], after[s])]
        mixed = Permutation(len(slots), self.seed, "block", number)
        return [slots[mixed[i]] for i in range(len(slots))]

    def _row(self, source: int, nth: int) -> int:
        epoch, index = divmod(nth, self._rows[source])
        key = (source, epoch)
        if key not in self._epochs:
            self._epochs = {k: v for k, v in self._epochs.items() if k[0] != source or k[1] == epoch - 1}
            self._epochs[key] = Permutation(self._rows[source], self.seed, "epoch", source, epoch)
        return self._epochs[key][index]
