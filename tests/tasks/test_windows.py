"""Windows over words: all words are answered once, where most is seen around them."""

import numpy as np
import pytest

from foundling.tasks.windows import Window, windows


def test_a_text_that_fits_has_one_window() -> None:
    assert windows(np.array([0, 2, 5, 9]), 9, 4, both_sides=True) == [Window(0, 3, 0, 3)]


@pytest.mark.parametrize("both_sides", [True, False])
def test_every_word_is_answered_once_where_most_is_seen(both_sides: bool) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        lengths = random.integers(1, random.integers(2, 8), size=random.integers(1, 60))
        cuts = np.concatenate([[0], np.cumsum(lengths)])
        room, overlap = int(random.integers(8, 30)), int(random.integers(0, 20))
        found = windows(cuts, room, overlap, both_sides=both_sides)
        answered = [word for w in found for word in range(w.first_answered, w.after_answered)]
        assert answered == list(range(len(lengths)))
        assert all(w.first <= w.first_answered < w.after_answered <= w.after for w in found)
        assert all(cuts[w.after] - cuts[w.first] <= room for w in found)
        assert found[-1].after == len(lengths)

        def seen(w: Window, word: int, cuts: np.ndarray = cuts, last: int = len(lengths)) -> float:
            before = cuts[word] - cuts[w.first] if w.first else np.inf
            behind = cuts[w.after] - cuts[word + 1] if both_sides and w.after < last else np.inf
            return min(before, behind)

        for w in found:
            for word in range(w.first_answered, w.after_answered):
                assert seen(w, word) == max(seen(o, word) for o in found if o.first <= word < o.after)


def test_windows_overlap_and_the_last_one_is_full() -> None:
    cuts = np.arange(101)
    found = windows(cuts, 30, 10, both_sides=True)
    assert [(w.first, w.after) for w in found] == [(0, 30), (20, 50), (40, 70), (60, 90), (70, 100)]
    assert [w.first_answered for w in found] == [0, 25, 45, 65, 80]
    assert [w.first_answered for w in windows(cuts, 30, 10, both_sides=False)] == [0, 30, 50, 70, 90]


def test_a_word_longer_than_a_window_is_alone_in_one() -> None:
    found = windows(np.array([0, 3, 53, 56]), 10, 5, both_sides=True)
    assert [(w.first, w.after) for w in found] == [(0, 1), (1, 2), (2, 3)]
