"""Matthews' correlation coefficient, for two labels or more (Gorodkin 2004, Computational Biology and Chemistry 28).

1: all right, 0: no better than labels drawn by their shares, or only one label was said or is true.
"""

# Shapes: K = labels, 3 = right, said, true.

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from foundling.evaluation.metrics._counts import label_counts, single_labels
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of


class Config(MetricConfig):
    """Has no settings."""

    kind: str = "mcc"
    """Name of the part."""

    def build(self) -> "Matthews":
        return Matthews()


class Matthews:
    settings = "Matthews correlation of labels; 0 where only one label was said or is true"
    best = "mcc"
    higher_is_better = True

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds, answers: labels."""
        examples = examples_of(golds, answers)
        true, said = ([frozenset([label]) for label in single_labels(side)] for side in (golds, answers))
        _, counts_NK3 = label_counts(true, said)
        return Sums(self.settings, True, examples, counts_NK3, _mcc)


def _mcc(counts_K3: np.ndarray, num: int) -> dict[str, float]:
    right, (said_K, true_K) = int(counts_K3[:, 0].sum()), counts_K3[:, 1:].T.astype(np.int64)
    spread = (num * num - int(said_K @ said_K)) * (num * num - int(true_K @ true_K))
    return {"mcc": (right * num - int(said_K @ true_K)) / math.sqrt(spread) if spread else 0.0}
