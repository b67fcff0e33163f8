"""Mean squared and mean absolute error of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from foundling.evaluation.metrics._numbers import numbers
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of


class Config(MetricConfig):
    """Has no settings."""

    kind: str = "regression"
    """Name of the part."""

    def build(self) -> "Regression":
        return Regression()


class Regression:
    settings = "mean squared error (mse) and mean absolute error (mae), in the numbers' unit"
    best = "mse"
    higher_is_better = False

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds, answers: finite numbers."""
        examples = examples_of(golds, answers)
        errors_N = numbers(answers) - numbers(golds)
        return Sums(self.settings, False, examples, np.stack([errors_N**2, np.abs(errors_N)], 1), _means)


def _means(sums: np.ndarray, num: int) -> dict[str, float]:
    return {"mse": float(sums[0] / num), "mae": float(sums[1] / num)}
