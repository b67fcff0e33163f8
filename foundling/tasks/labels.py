"""The labels of a task, learnt from its training examples, and what is odd about them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from foundling.core.errors import UserError
from foundling.core.log import logger

_FEW = 5
"""Examples of a label in training below which it is told: little can be learnt from so few."""
_SHOWN = 8


def learn_labels(sets: Mapping[str, Sequence[Sequence[str]]], *, fewest: int = 2) -> list[str]:
    """The labels of the training examples, sorted (numbers as numbers), counted and told.

    sets: the labels of each example, by split. UserError: fewer than `fewest` labels; a label that only dev or test
    have, which no training could teach.
    """
    counts = {split: Counter(label for labels in found for label in labels) for split, found in sets.items()}
    known = sorted(counts["train"], key=_key)
    if len(known) < fewest:
        raise UserError(
            f"there must be at least {fewest} labels to tell apart",
            got=", ".join(known) or "none",
            do="look at task.train",
        )
    for split, found in counts.items():
        if unseen := {label: number for label, number in found.items() if label not in counts["train"]}:
            shown = ", ".join(f"{label!r} ({number})" for label, number in list(unseen.items())[:_SHOWN])
            raise UserError(
                f"every label of {split} must be among those of train ({_some(known)})",
                got=f"{shown}: {sum(unseen.values())} of {sum(found.values())} labels",
                do="add such examples to train, or take them out",
            )
    shown = ", ".join(f"{label} {counts['train'][label]:,}" for label in known[:_SHOWN])
    logger.info("labels: %s%s", shown, f", and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    if few := [label for label in known if counts["train"][label] < _FEW]:
        logger.warning("labels: fewer than %d training examples of %s", _FEW, _some(few))
    return known


def _key(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _some(labels: Sequence[str]) -> str:
    more = len(labels) - _SHOWN
    return ", ".join(labels[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
