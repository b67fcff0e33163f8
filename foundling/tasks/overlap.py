"""Examples that stand where they should not: in two splits, or twice in training with different answers."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from foundling.core.log import logger


def tell_overlap(splits: Mapping[str, Sequence[tuple[str, Any]]]) -> dict[str, int]:
    """Warns of texts that stand in more than one split, and of training texts with several answers; the counts.

    splits: (text, what is true of it) of each example. Texts are alike whatever their case, width and white space.
    """
    found: dict[str, int] = {}
    answers: dict[str, set[str]] = {}
    for text, truth in splits.get("train", ()):
        answers.setdefault(_normal(text), set()).add(repr(truth))
    if torn := sum(len(said) > 1 for said in answers.values()):
        found["train, several answers"] = torn
        logger.warning("overlap: %d training texts stand there more than once with different answers", torn)
    seen = {"train": set(answers)}
    for split in ("dev", "test"):
        texts = [_normal(text) for text, _ in splits.get(split, ())]
        for other, known in seen.items():
            if twice := sum(text in known for text in texts):
                found[f"{split} in {other}"] = twice
                logger.warning("overlap: %d of %d %s texts are in %s too", twice, len(texts), split, other)
        seen[split] = set(texts)
    return found


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
