"""Pearson's and Spearman's correlation of numbers. Spearman's is Pearson's of the ranks; equal numbers share a rank."""

# Shapes: N = examples.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from foundling.evaluation.metrics._numbers import numbers
from foundling.evaluation.metrics.base import MetricConfig, examples_of


class Config(MetricConfig):
    """Which of the two is the main figure."""

    kind: str = "correlation"
    """Name of the part."""
    main: Literal["spearman", "pearson"] = "spearman"
    """The main figure; both are computed."""

    def build(self) -> "Correlation":
        return Correlation(self.main)


class Correlation:
    settings = "Spearman (equal numbers share the mean of their ranks) and Pearson; 0 where one side is constant"
    higher_is_better = True

    def __init__(self, main: str) -> None:
        self.best = main

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> "CorrelationScored":
        """golds, answers: finite numbers."""
        return CorrelationScored(self.settings, examples_of(golds, answers), numbers(golds), numbers(answers))


@dataclass(frozen=True)
class CorrelationScored:
    settings: str
    examples: str
    golds_N: np.ndarray
    answers_N: np.ndarray

    higher_is_better = True

    @property
    def num_examples(self) -> int:
        return len(self.golds_N)

    def figures(self, index_N: np.ndarray | None = None) -> dict[str, float]:
        golds_N, answers_N = self.golds_N, self.answers_N
        if index_N is not None:
            golds_N, answers_N = golds_N[index_N], answers_N[index_N]
        return {"spearman": _pearson(_ranks(golds_N), _ranks(answers_N)), "pearson": _pearson(golds_N, answers_N)}


def _pearson(x_N: np.ndarray, y_N: np.ndarray) -> float:
    if np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return 0.0
    # Each side is scaled by its largest deviation first, so that the squares of tiny or huge numbers stay in range.
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    x_N, y_N = x_N / np.abs(x_N).max(), y_N / np.abs(y_N).max()
    return float(np.clip(x_N @ y_N / np.sqrt((x_N @ x_N) * (y_N @ y_N)), -1, 1))


def _ranks(x_N: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal numbers share the mean of theirs."""
    _, place_N, counts = np.unique(x_N, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place_N]
