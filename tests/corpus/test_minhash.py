"""MinHash against its laws, on sets whose Jaccard similarity is known."""

import numpy as np
import pytest

from foundling.corpus.minhash import (
    MinHash,
    bands_and_rows,
    candidate_probability,
    found_probability,
    places_for,
)
from foundling.corpus.shingles import Hashes, mixed

NUM_PAIRS = 600
PINNED = [53429, 7351, 38041, 16835]
"""A corpus cleaned on one machine is continued on another: signatures never change."""


def pair(number: int, jaccard: float, size: int = 150) -> tuple[Hashes, Hashes]:
    """Two sets of `size` shingles whose Jaccard similarity is `jaccard`, but for rounding."""
    shared = round(2 * size * jaccard / (1 + jaccard))
    numbers = mixed(np.arange(2 * size, dtype=np.uint64) + np.uint64((number + 1) * 10_000))
    return numbers[:size], np.concatenate([numbers[:shared], numbers[size : 2 * size - shared]])


@pytest.mark.parametrize("jaccard", [0.2, 0.5, 0.8])
def test_agreement_estimates_jaccard_with_the_error_that_is_promised(jaccard: float) -> None:
    hashes = MinHash(126)
    shares = []
    for number in range(NUM_PAIRS):
        left, right = pair(number, jaccard)
        shares.append(np.mean(hashes.signature(left) == hashes.signature(right)))
    error = np.sqrt(jaccard * (1 - jaccard) / 126)
    assert abs(np.mean(shares) - jaccard) < 4 * error / np.sqrt(NUM_PAIRS) + 0.002  # rounding of the sets' sizes
    assert np.std(shares) == pytest.approx(error, rel=0.15)


@pytest.mark.parametrize("jaccard", [0.4, 0.6, 0.7, 0.8])
def test_bands_and_threshold_find_what_their_laws_promise(jaccard: float) -> None:
    bands, rows, threshold = 21, 6, 0.7
    hashes = MinHash(bands * rows)
    num_candidates = num_found = 0
    for number in range(NUM_PAIRS):
        left, right = pair(number, jaccard)
        equal = hashes.signature(left) == hashes.signature(right)
        shares_a_band = bool(equal.reshape(bands, rows).all(axis=1).any())
        num_candidates += shares_a_band
        num_found += shares_a_band and int(equal.sum()) >= places_for(threshold, bands * rows)
    for got, law in (
        (num_candidates, candidate_probability(jaccard, bands, rows)),
        (num_found, found_probability(jaccard, bands, rows, threshold)),
    ):
        assert abs(got / NUM_PAIRS - law) < 4 * np.sqrt(law * (1 - law) / NUM_PAIRS) + 0.01


def test_found_probability_without_a_threshold_is_the_s_curve() -> None:
    for jaccard in (0.1, 0.5, 0.9, 1.0):
        assert found_probability(jaccard, 7, 3, 0.0) == pytest.approx(candidate_probability(jaccard, 7, 3))


def test_found_probability_against_every_outcome() -> None:
    """Two bands of two rows: sixteen outcomes, summed by hand."""
    chance, total = 0.6, 0.0
    for outcome in range(16):
        bits = [outcome >> place & 1 for place in range(4)]
        if ((bits[0] and bits[1]) or (bits[2] and bits[3])) and sum(bits) >= 3:
            total += chance ** sum(bits) * (1 - chance) ** (4 - sum(bits))
    assert found_probability(chance, 2, 2, 0.75) == pytest.approx(total)


@pytest.mark.parametrize(("threshold", "num_hashes"), [(0.5, 64), (0.7, 126), (0.8, 128), (0.95, 200), (1.0, 16)])
def test_bands_and_rows_are_the_steepest_with_that_recall(threshold: float, num_hashes: int) -> None:
    bands, rows = bands_and_rows(threshold, num_hashes)
    assert bands * rows <= num_hashes
    assert candidate_probability(threshold, bands, rows) >= 0.9
    if rows < num_hashes:
        assert candidate_probability(threshold, num_hashes // (rows + 1), rows + 1) < 0.9


def test_a_signature_depends_on_the_set_alone() -> None:
    shingles = mixed(np.arange(2000, dtype=np.uint64))
    again = np.concatenate([shingles[::-1], shingles[:700]])
    assert np.array_equal(MinHash(32).signature(shingles), MinHash(32).signature(again))
    assert MinHash(4).signature(mixed(np.arange(1, 4, dtype=np.uint64))).tolist() == PINNED
