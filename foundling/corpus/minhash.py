"""MinHash signatures and what banding promises of them.

Broder 1997, On the resemblance and containment of documents: under a random order of all shingles, two sets have the
same smallest one with the probability of their Jaccard similarity J = |A & B| / |A | B|. K orders give a signature of
K numbers; the share of places in which two signatures agree estimates J with a standard error of
sqrt(J (1 - J) / K).

Banding (Indyk and Motwani 1998; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4): a signature
is cut into b bands of r rows, and a pair becomes a candidate where a whole band agrees. That happens with probability

    P(J) = 1 - (1 - J^r)^b        (the S-curve; steepest near J = (1/b)^(1/r))

An order here is multiplication of a random 32-bit hash by an odd number modulo 2^32, which is a bijection. Of each
smallest number the low 16 bits are kept (Li and König 2010, b-bit minwise hashing): different shingles agree by
chance once in 65,536 times, which is below the estimate's error.
"""

import math

import numpy as np
from numpy.typing import NDArray

from foundling.corpus.shingles import Hashes, mixed

Signature = NDArray[np.uint16]
_BLOCK_SHINGLES = 512  # the products of 256 hashes are 512 KiB: they stay in the second-level cache


class MinHash:
    """Signatures of `num_hashes` numbers; equal for equal sets of shingles, anywhere and any time."""

    def __init__(self, num_hashes: int, seed: int = 0) -> None:
        numbers = mixed(np.arange(num_hashes, dtype=np.uint64) + np.uint64((seed + 1) << 32))
        self._factors = (numbers >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
        self._products = np.empty((_BLOCK_SHINGLES, num_hashes), np.uint32)

    def signature(self, shingles: Hashes) -> Signature:
        """[S] hashes of shingles, S >= 1 -> [num_hashes]."""
        assert len(shingles)
        short = (shingles >> np.uint64(32)).astype(np.uint32)
        smallest = None
        for at in range(0, len(short), _BLOCK_SHINGLES):
            block = short[at : at + _BLOCK_SHINGLES]
            products = np.multiply(block[:, None], self._factors, out=self._products[: len(block)])
            found = products.min(axis=0)
            smallest = found if smallest is None else np.minimum(smallest, found, out=smallest)
        assert smallest is not None
        return smallest.astype(np.uint16)


def candidate_probability(jaccard: float, bands: int, rows: int) -> float:
    """The S-curve: the probability that a pair of this similarity shares a band."""
    return 1.0 - (1.0 - jaccard**rows) ** bands


def found_probability(jaccard: float, bands: int, rows: int, threshold: float) -> float:
    """The probability that a pair shares a band and at least `threshold` of its signatures' places agree.

    The number of places that agree is binomial. Taken away are its values of at least the threshold in which no band
    is whole: bands are independent, each with fewer than `rows` places that agree.
    """
    num_hashes = bands * rows
    fewest = places_for(threshold, num_hashes)
    whole = np.array([_binomial(num_hashes, k, jaccard) for k in range(num_hashes + 1)])
    broken_band = np.array([_binomial(rows, k, jaccard) for k in range(rows)])
    broken = np.ones(1)
    for _ in range(bands):
        broken = np.convolve(broken, broken_band)
    return float(whole[fewest:].sum() - broken[fewest:].sum())


def _binomial(count: int, hits: int, probability: float) -> float:
    return math.comb(count, hits) * probability**hits * (1.0 - probability) ** (count - hits)


def places_for(threshold: float, num_hashes: int) -> int:
    """The fewest places of two signatures that must agree for an estimate of at least `threshold`."""
    return math.ceil(threshold * num_hashes - 1e-9)


def bands_and_rows(threshold: float, num_hashes: int, recall: float = 0.9) -> tuple[int, int]:
    """(bands, rows): the steepest curve that makes candidates of at least `recall` of the pairs at the threshold.

    More rows make fewer false candidates. bands * rows <= num_hashes; the rest of the hashes would not be used.
    """
    rows = 1
    while num_hashes // (rows + 1) >= 1 and (
        candidate_probability(threshold, num_hashes // (rows + 1), rows + 1) >= recall
    ):
        rows += 1
    return num_hashes // rows, rows
