"""Which words stand near which, and rows of text whose chance decides it."""

# Shapes: M = centers (one for each pair, or for each bag), C = context words, P = words.

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foundling.data.order import Weights
from foundling.data.pairs import chance
from foundling.data.rows import Row, Rows, Stream


class NearbyRows(Rows):
    """Rows side by side, each with a key of its own."""

    def __init__(self, streams: Sequence[Stream], weights: Weights | None, *, row_length: int, seed: int) -> None:
        super().__init__(streams, weights, row_length=row_length, extra_tokens=0, seed=seed)
        self._seed = seed

    def __getitem__(self, sample: int) -> Row:
        return replace(super().__getitem__(sample), key=chance(self._seed, sample))


@dataclass(frozen=True)
class Nearby:
    """Pairs (center, context) in the order of their centers; or bags: each center once, and where its words begin."""

    centers_M: np.ndarray
    """Places, int64."""
    contexts_C: np.ndarray
    """Places, int64."""
    starts_M: np.ndarray | None = None
    """Of bags: where the contexts of each center begin."""

    def bags(self) -> "Nearby":
        """Each center once."""
        centers_M, starts_M = np.unique(self.centers_M, return_index=True)
        return Nearby(centers_M, self.contexts_C, starts_M)


def pairs_within(groups_P: np.ndarray, reach_P: np.ndarray, window: int) -> Nearby:
    """All pairs of words of one group of which the context lies within the center's reach.

    groups_P: rising; words of one group stand side by side. reach_P: words on each side, 1 to window.
    """
    centers, contexts = [], []
    for distance in range(1, window + 1):
        num_left = max(0, len(groups_P) - distance)
        together = groups_P[distance:] == groups_P[:num_left]
        left = np.flatnonzero(together & (reach_P[:num_left] >= distance))
        right = np.flatnonzero(together & (reach_P[distance:] >= distance)) + distance
        centers += [left, right]
        contexts += [left + distance, right - distance]
    centers_M, contexts_C = np.concatenate(centers), np.concatenate(contexts)
    order = np.argsort(centers_M, kind="stable")
    return Nearby(centers_M[order], contexts_C[order])
