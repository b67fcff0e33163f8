"""The labels of a task, learnt from its training examples, and what is odd about them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from foundling.core.errors import UserError
from foundling.core.log import logger

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_SHOWN = 8
_SHOWN_ROWS = 3


class Labels(list[str]):
    """Labels in their order. `counts`: split -> label -> in how many of its examples."""

    counts: dict[str, Counter[str]]


def learn_labels(
    sets: Mapping[str, Sequence[Sequence[str]]],
    *,
    fewest: int = 2,
    few: int = 5,
    places: Mapping[str, Sequence[str]] | None = None,
) -> Labels:
    """The labels of the training examples, sorted (numbers as numbers, before words), counted and told.

    sets: for each split (`train` among them) the labels of each example, one or any number. fewest: labels that there
    must be. few: examples of a label in training below which it is told, since little is learnt of them. places: for
    each split where its examples stand, for messages. UserError: fewer labels; a label that only other splits have,
    which no training could teach.
    """
    counts = {split: Counter(label for labels in found for label in set(labels)) for split, found in sets.items()}
    known = Labels(sorted(counts["train"], key=_key))
    known.counts = counts
    if len(known) < fewest:
        raise UserError(
            f"there must be at least {fewest} labels to tell apart",
            got=f"{_counted(known, counts['train'])} in {len(sets['train']):,} training examples",
            do="look at task.train",
        )
    faults = [
        fault
        for split, found in counts.items()
        if (fault := _unseen(split, found, sets[split], known, (places or {}).get(split)))
    ]
    if faults:
        raise UserError(
            f"every label must be among those of train ({_some(known)})",
            got="; ".join(faults),
            do="add such examples to train, or take them out",
        )
    logger.info("labels: %s", _counted(known, counts["train"]))
    if rare := [label for label in known if counts["train"][label] < few]:
        logger.warning("labels: fewer than %d training examples: %s", few, _counted(rare, counts["train"]))
    if without := sum(not labels for labels in sets["train"]):
        logger.info("labels: %s of %s training examples have none", f"{without:,}", f"{len(sets['train']):,}")
    return known


def _unseen(
    split: str, found: Counter[str], sets: Sequence[Sequence[str]], known: Labels, places: Sequence[str] | None
) -> str:
    """The labels of a split that train lacks, with their counts and rows; nothing where there is none."""
    unseen = Counter({label: count for label, count in found.items() if label not in known.counts["train"]})
    if not unseen:
        return ""
    rows = [number for number, labels in enumerate(sets) if any(label in unseen for label in labels)]
    shown = [places[number] if places is not None else f"example {number + 1}" for number in rows[:_SHOWN_ROWS]]
    more = f" and {len(rows) - _SHOWN_ROWS} more" if len(rows) > _SHOWN_ROWS else ""
    return f"in {split} {_counted(sorted(unseen, key=_key), unseen)} ({', '.join(shown)}{more})"


def _key(label: str) -> tuple[int, float, str]:
    return (0, float(label), label) if _NUMBER.fullmatch(label) else (1, 0.0, label)


def _counted(labels: Sequence[str], counts: Mapping[str, int]) -> str:
    """`neg 3,310, pos 3,610`"""
    return _some([f"{label} {counts[label]:,}" for label in labels]) or "none"


def _some(words: Sequence[str]) -> str:
    more = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
