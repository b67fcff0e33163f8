"""Long texts in windows that overlap: each word is answered where the model sees most around it."""

# Shapes: W = words of a text.

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """A stretch of words that are read together, and those of them that are answered."""

    first: int
    after: int
    """First word that is read, and the word after the last."""
    first_answered: int
    after_answered: int
    """First word that is answered, and the word after the last."""


def windows(cuts_W1: np.ndarray, room: int, overlap: int, *, both_sides: bool) -> list[Window]:
    """Windows of at most `room` tokens over a text's words; every word is answered in one of them, in order.

    cuts_W1: the token that each word begins at, rising, and the number of tokens; int64 [W + 1]. overlap: tokens that
    neighbours share, at most half of `room`, or a word less where words do not fall together. The last window reaches
    back as far as it can. A word of more tokens than `room` has a window of its own. both_sides: a word sees what
    follows it; what it sees least of, before or after it, counts.
    """
    num_words = len(cuts_W1) - 1
    stretches = list(_stretches(cuts_W1, room, min(overlap, room // 2)))
    best_W, owner_W = np.full(num_words, -1.0), np.zeros(num_words, dtype=np.int64)
    for number, (first, after) in enumerate(stretches):
        # Where the text itself begins or ends nothing is missing.
        seen = cuts_W1[first:after] - cuts_W1[first] if first else np.full(after - first, np.inf)
        if both_sides and after < num_words:
            seen = np.minimum(seen, cuts_W1[after] - cuts_W1[first + 1 : after + 1])
        better = seen > best_W[first:after]
        owner_W[first:after][better] = number
        best_W[first:after][better] = seen[better]
    ends = np.searchsorted(owner_W, np.arange(len(stretches)), side="right").tolist()
    found = zip(stretches, [0, *ends], ends, strict=False)
    return [Window(*stretch, first, after) for stretch, first, after in found if first < after]


def _stretches(cuts_W1: np.ndarray, room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First word and the word after the last of each window."""
    num_words = len(cuts_W1) - 1
    first = after = 0
    while after < num_words:
        if after:
            # The next word must fit, and something new must come in.
            earliest = np.searchsorted(cuts_W1, max(cuts_W1[after] - overlap, cuts_W1[after + 1] - room))
            first = max(first + 1, min(int(earliest), after))
            if cuts_W1[-1] - cuts_W1[first] <= room:
                first = int(np.searchsorted(cuts_W1, cuts_W1[-1] - room))
        after = max(after + 1, int(np.searchsorted(cuts_W1, cuts_W1[first] + room, side="right")) - 1)
        yield first, after
