"""Accuracy: the share of examples that are wholly right."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from foundling.evaluation.metrics._counts import label_sets
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of


class Config(MetricConfig):
    """Has no settings."""

    kind: str = "accuracy"
    """Name of the part."""

    def build(self) -> "Accuracy":
        return Accuracy()


class Accuracy:
    settings = "accuracy: share of examples whose label, or whole set of labels, is right"
    best = "accuracy"
    higher_is_better = True

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds, answers: labels, or the labels of each example, whose order says nothing."""
        examples = examples_of(golds, answers)
        right = [gold == answer for gold, answer in zip(label_sets(golds), label_sets(answers), strict=True)]
        return Sums(self.settings, True, examples, np.array(right), lambda sums, num: {"accuracy": float(sums / num)})
