"""Examples that give their answers away: in two splits, twice in training with several answers, with it in the text.

Each check reads a text once. Texts are alike whatever their case, width (NFKC) and white space; equal hashes of 16
bytes stand for equal texts.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any

from foundling.core.log import logger
from foundling.corpus.scripts import UNSPACED

_HASH_BYTES = 16
_FEWEST_EXAMPLES = 20
"""Examples below which a share says nothing."""
_LEAK_SHARE = 0.9
_UNSPACED = re.compile(f"[{UNSPACED}]")
_EDGES = (rf"(?<![^\W{UNSPACED}])", rf"(?![^\W{UNSPACED}])")
"""No letter or digit before, and none behind."""
_HAS_LETTER = re.compile(r"[^\W\d_]")


def tell_overlap(splits: Mapping[str, Sequence[tuple[str, Any]]]) -> dict[str, int]:
    """Warns of texts that stand in more than one split, and of training texts with several answers; the counts.

    splits: (text, what is true of it) of each example.
    """
    found: dict[str, int] = {}
    answers: dict[bytes, set[str]] = {}
    for text, truth in splits.get("train", ()):
        answers.setdefault(_hash(text), set()).add(repr(truth))
    if torn := sum(len(said) > 1 for said in answers.values()):
        logger.warning("overlap: %s train texts stand there with several answers", f"{torn:,}")
        found["train, several answers"] = torn
    seen = {"train": set(answers)}
    for split in splits:
        if split == "train":
            continue
        hashes = [_hash(text) for text, _ in splits[split]]
        for other, known in seen.items():
            if twice := sum(one in known for one in hashes):
                logger.warning(
                    "overlap: %s of %s %s texts are in %s too", f"{twice:,}", f"{len(hashes):,}", split, other
                )
                found[f"{split} in {other}"] = twice
        seen[split] = set(hashes)
    return found


def tell_leak(examples: Sequence[tuple[str, Sequence[str]]]) -> float:
    """Warns where nearly all texts hold the name of their own label, as words; the share of those that do.

    examples: (text, its labels). Labels without a letter (`0`, `5.0`) and examples without a label are passed over; of
    fewer than 20 examples nothing is said, and the share is 0.
    """
    named = [(text, [label for label in labels if _HAS_LETTER.search(label)]) for text, labels in examples]
    named = [(text, labels) for text, labels in named if labels]
    if len(named) < _FEWEST_EXAMPLES:
        return 0.0
    held = [(label, text) for text, labels in named if (label := _held(_normal(text), labels)) is not None]
    share = len(held) / len(named)
    if share >= _LEAK_SHARE:
        logger.warning(
            "overlap: %.0f %% of the training texts hold the name of their own label, such as %r in %r: "
            "is the answer part of what is read?", 100 * share, held[0][0], held[0][1][:80],
        )  # fmt: skip
    return share


def _held(text: str, labels: Sequence[str]) -> str | None:
    return next((label for label in labels if _as_words(label).search(text)), None)


@cache
def _as_words(label: str) -> re.Pattern[str]:
    """The label where no word goes on at its ends; scripts without spaces do not show where words end."""
    name = _normal(label)
    before, after = (
        "" if _UNSPACED.match(end) else edge for end, edge in zip((name[0], name[-1]), _EDGES, strict=True)
    )
    return re.compile(before + re.escape(name) + after)


def _hash(text: str) -> bytes:
    return blake2b(_normal(text).encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
