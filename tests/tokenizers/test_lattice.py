"""The sums of the unigram lattice against plain enumeration."""

import math

import numpy as np
import pytest

from foundling.tokenizers._lattice import Lattice, _best_split, _substrings


def _splits(word: str, pieces: dict[str, float]) -> list[list[str]]:
    if not word:
        return [[]]
    ends = range(1, len(word) + 1)
    return [[word[:e], *rest] for e in ends if word[:e] in pieces for rest in _splits(word[e:], pieces)]


def test_one_step_equals_enumeration() -> None:
    words = {"abab": 3, "abc": 5, "cab": 2, "b": 1}
    lattice = Lattice(words, list("abc"), 3, 50)
    pieces = dict(lattice.pieces())
    expected = dict.fromkeys(pieces, 0.0)
    for word, count in words.items():
        ways = [(split, math.exp(sum(pieces[p] for p in split))) for split in _splits(word, pieces)]
        total = sum(weight for _, weight in ways)
        for split, weight in ways:
            for piece in split:
                expected[piece] += count * weight / total
    lattice.maximize()
    assert lattice._uses.tolist() == pytest.approx([expected[text] for text in lattice._texts])


def test_substrings_are_all_that_repeat() -> None:
    words, counts = ["abab", "abc", "b"], np.array([1.0, 2.0, 1.0])
    levels = _substrings(words, counts, [3, 2, 2, 1], 4)
    found = {text: count for texts, level, _ in levels for text, count in zip(texts, level.tolist(), strict=True)}
    assert found == {"a": 4, "b": 5, "c": 2, "ab": 4, "bc": 2, "abc": 2}


def test_the_best_split_leaves_the_piece_itself_out() -> None:
    scores = {"ab": -1.0, "a": -2.0, "b": -3.0, "aba": -2.5}
    assert _best_split("ab", scores, 3) == -5
    assert _best_split("aba", scores, 3) == -3


def test_pruning_keeps_the_alphabet() -> None:
    lattice = Lattice({"abab": 3, "abc": 5}, list("abcz"), 3, 50)
    lattice.maximize()
    lattice.prune(5)
    texts = [text for text, _ in lattice.pieces()]
    assert len(texts) == 5
    assert {"a", "b", "c", "z"} < set(texts)
