"""Precision, recall and F1 from counts, and the counts of labels."""

# Shapes: N = examples, K = labels, entity types or relations; 3 = right, said, true.

from collections.abc import Sequence
from typing import Any

import numpy as np

from foundling.core.errors import UserError


def rates(counts_K3: np.ndarray) -> np.ndarray:
    """Precision, recall and F1, fp64 [..., 3], of counts (right, said, true) [..., 3]; 0 where nothing was said or
    nothing is true."""
    right, said, true = np.moveaxis(np.asarray(counts_K3, dtype=np.float64), -1, 0)
    parts = [(right, said), (right, true), (2 * right, said + true)]
    return np.stack([np.divide(a, b, out=np.zeros_like(b), where=b > 0) for a, b in parts], -1)


def by_name(names: Sequence[str], counts_K3: np.ndarray) -> dict[str, float]:
    """`f1/NAME`, `precision/NAME` and `recall/NAME`; NaN for what was neither said nor is true."""
    found = rates(counts_K3)
    found[counts_K3[..., 1:].sum(-1) == 0] = np.nan
    rows = zip(names, found.tolist(), strict=True)
    return {
        f"{kind}/{name}": row[at] for name, row in rows for at, kind in ((2, "f1"), (0, "precision"), (1, "recall"))
    }


def label_sets(values: Sequence[Any]) -> list[frozenset[str]]:
    """The labels of each example: a label stands for the set of it. UserError: something else."""
    return [frozenset([value] if isinstance(value, str) else _texts(value)) for value in values]


def single_labels(values: Sequence[Any]) -> list[str]:
    """Labels as they are; UserError where one is no text."""
    for value in values:
        if not isinstance(value, str):
            raise UserError("a label must be a text", got=f"{value!r:.60}")
    return list(values)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(label, str) for label in value):
        raise UserError("labels must be a text or a list of texts", got=f"{value!r:.60}")
    return list(value)


def label_counts(
    golds: Sequence[frozenset[str]], answers: Sequence[frozenset[str]], only: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """The labels that occur, sorted, and for each example and label whether it was right, said, true: bool [N, K, 3].

    only: the labels that count, in this order.
    """
    occur = frozenset().union(*golds, *answers)
    labels = sorted(occur) if only is None else [label for label in only if label in occur]
    place = {label: k for k, label in enumerate(labels)}
    counts_NK3 = np.zeros((len(golds), len(labels), 3), dtype=bool)
    for at, sets in ((1, answers), (2, golds)):
        for number, labels_of in enumerate(sets):
            counts_NK3[number, [place[label] for label in labels_of if label in place], at] = True
    counts_NK3[:, :, 0] = counts_NK3[:, :, 1] & counts_NK3[:, :, 2]
    return labels, counts_NK3
