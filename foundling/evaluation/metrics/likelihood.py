"""How likely the true tokens are: their mean loss, and the perplexity."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from foundling.evaluation.metrics._numbers import numbers
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of


class Config(MetricConfig):
    """Has no settings."""

    kind: str = "likelihood"
    """Name of the part."""

    def build(self) -> "Likelihood":
        return Likelihood()


class Likelihood:
    settings = "mean over tokens of their loss in nats (loss), and its exponential (perplexity)"
    best = "perplexity"
    higher_is_better = False

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds: how many true tokens each example has; answers: their summed loss, nats."""
        examples = examples_of(golds, answers)
        statistics_N2 = np.stack([numbers(answers), numbers(golds)], 1)
        return Sums(self.settings, False, examples, statistics_N2, _figures)


def _figures(sums: np.ndarray, num: int) -> dict[str, float]:
    loss = float(sums[0] / sums[1])
    return {"perplexity": math.exp(min(700.0, loss)), "loss": loss}
