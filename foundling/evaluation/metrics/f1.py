"""F1 of labels, one or several an example: by label, and averaged over labels.

The averages are scikit-learn's. macro: the mean over labels; micro: of the sums over labels, which is the accuracy
where each example has one label and all labels count; weighted: the mean weighted by how often a label is true. The F1
of one class against the rest is that of `labels: [NAME]`.
"""

# Shapes: K = labels, 3 = right, said, true.

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from foundling.evaluation.metrics._counts import by_name, label_counts, label_sets, rates
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of


class Config(MetricConfig):
    """Which labels count, and which average is the main figure."""

    kind: str = "f1"
    """Name of the part."""
    average: Literal["macro", "micro", "weighted"] = "macro"
    """The main figure: f1_macro, f1_micro or f1_weighted. All three are computed."""
    labels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The labels that count, for example without the one for nothing; None: all. One that is neither true nor said
    anywhere is left out of the averages."""

    def build(self) -> "F1":
        return F1(self)


class F1:
    higher_is_better = True

    def __init__(self, config: Config) -> None:
        self.labels = config.labels
        self.best = f"f1_{config.average}"
        which = "all labels that occur" if config.labels is None else f"{len(config.labels)} labels, those that occur"
        self.settings = f"F1 by label over {which}; macro, micro and weighted averages; 0 where undefined"

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds, answers: labels, or the labels of each example."""
        examples = examples_of(golds, answers)
        names, counts_NK3 = label_counts(label_sets(golds), label_sets(answers), self.labels)

        def figures(counts_K3: np.ndarray, num: int) -> dict[str, float]:
            return {**averages(counts_K3), **by_name(names, counts_K3)}

        return Sums(self.settings, True, examples, counts_NK3, figures)


def averages(counts_K3: np.ndarray) -> dict[str, float]:
    """F1, precision and recall, macro, micro and weighted, over the labels that occur."""
    counts_K3 = counts_K3[counts_K3[:, 1:].sum(-1) > 0]
    each_K3, true_K = rates(counts_K3), counts_K3[:, 2]
    means = {
        "macro": each_K3.mean(0) if len(each_K3) else np.zeros(3),
        "micro": rates(counts_K3.sum(0)),
        "weighted": true_K @ each_K3 / max(1, true_K.sum()),
    }
    kinds = ((2, "f1"), (0, "precision"), (1, "recall"))
    return {f"{kind}_{name}": float(mean[at]) for at, kind in kinds for name, mean in means.items()}
