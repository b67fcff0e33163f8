"""The official measure of SemEval-2010 task 8 (Hendrickx et al. 2010): macro-averaged F1 over nine relations.

A label is `Relation(e1,e2)`, `Relation(e2,e1)` or `Other`. A relation is right only in the right direction; said in the
wrong one it is wrong, and counts as said and as true. `Other` is no relation. The average is over the relations that
are true somewhere, which in the published test set are all nine; one that is said and never true counts as `Other`.
`f1_undirected` is the same without directions.
"""

# Shapes: N = examples, K = relations and Other, 4 = right, said, true, right but for the direction.

from collections.abc import Sequence
from typing import Any

import numpy as np

from foundling.core.errors import UserError
from foundling.evaluation.metrics._counts import rates, single_labels
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of

OTHER = "Other"


class Config(MetricConfig):
    """Has no settings."""

    kind: str = "semeval"
    """Name of the part."""

    def build(self) -> "SemEval":
        return SemEval()


class SemEval:
    settings = "SemEval-2010 task 8, official: macro F1 over relations with direction, without Other"
    best = "f1_macro"
    higher_is_better = True

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds, answers: labels. An answer without a direction, an empty one too, is `Other`.

        UserError: a gold that is no label of the task.
        """
        examples = examples_of(golds, answers)
        for label in single_labels(golds):
            if label != OTHER and _split(label)[1] not in ("e1,e2)", "e2,e1)"):
                raise UserError("a gold must be Other, or a relation with (e1,e2) or (e2,e1)", got=repr(label))
        true, said = ([_split(label) for label in single_labels(side)] for side in (golds, answers))
        names = [*sorted({name for name, _ in true} - {OTHER}), OTHER]
        place = {name: k for k, name in enumerate(names)}
        counts_NK4 = np.zeros((len(golds), len(names), 4), dtype=bool)
        for number, (gold, answer) in enumerate(zip(true, said, strict=True)):
            counts_NK4[number, place[gold[0]], 0] = gold == answer
            counts_NK4[number, place.get(answer[0], place[OTHER]), 1] = True
            counts_NK4[number, place[gold[0]], 2] = True
            counts_NK4[number, place[gold[0]], 3] = gold[0] == answer[0]
        return Sums(self.settings, True, examples, counts_NK4, _figures)


def _figures(counts_K4: np.ndarray, num: int) -> dict[str, float]:
    relations_K4 = counts_K4[:-1][counts_K4[:-1, 2] > 0]
    directed_K3, undirected_K3 = relations_K4[:, :3], relations_K4[:, [3, 1, 2]]
    macro = [rates(each).mean(0) if len(each) else np.zeros(3) for each in (directed_K3, undirected_K3)]
    micro = rates(directed_K3.sum(0))
    return {
        "f1_macro": float(macro[0][2]),
        "precision_macro": float(macro[0][0]),
        "recall_macro": float(macro[0][1]),
        "f1_micro": float(micro[2]),
        "f1_undirected": float(macro[1][2]),
        "accuracy": float(counts_K4[:, 0].sum() / num),
    }


def _split(label: str) -> tuple[str, str]:
    """The relation and its direction; `Other` without one."""
    name, bracket, direction = label.strip().partition("(")
    return (name.strip(), direction.replace(" ", "")) if bracket else (OTHER, "")
