"""Steps of each kind that are small enough to see through."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop

_DIGIT = re.compile(r"\d")


class MaskConfig(PartConfig):
    """A document step: digits become `#`."""

    kind: str = "mask"

    def build(self) -> "Mask":
        return Mask()


class Mask:
    def apply(self, document: Document) -> Document | Drop:
        text, count = _DIGIT.subn("#", document.text)
        return document.with_text(text, digits=count)


class RareConfig(PartConfig):
    """A survey step: drops documents whose last word ends no other, and writes on the rest how many it ends."""

    kind: str = "rare"

    def build(self) -> "Rare":
        return Rare()


class Rare:
    def __init__(self) -> None:
        self.counts: Counter[bytes] = Counter()
        self.numbers: list[int] = []

    def signature(self, document: Document) -> bytes:
        return (document.text.split() or [""])[-1].encode()

    def survey(self, signatures: Iterator[bytes]) -> None:
        self.counts = Counter(signatures)

    def decide(self, number: int, document: Document) -> Document | Drop:
        self.numbers.append(number)
        count = self.counts[self.signature(document)]
        if count == 1:
            return Drop("rare", f"{number} stands alone")
        return document.with_text(f"{document.text} x{count}", marks=1) if count % 2 else document

    def summary(self) -> dict[str, Any]:
        assert self.numbers == list(range(self.counts.total())), "each document once, in order"
        return {"most": max(self.counts.values(), default=0)}


class FirstConfig(PartConfig):
    """A corpus step: keeps the first three documents that end with the same word."""

    kind: str = "first"

    def build(self) -> "First":
        return First()


class First:
    def __init__(self) -> None:
        self.seen: Counter[bytes] = Counter()

    def signature(self, document: Document) -> bytes:
        return (document.text.split() or [""])[-1].encode()

    def admit(self, signature: bytes) -> Drop | None:
        self.seen[signature] += 1
        return Drop("fourth", f"number {self.seen[signature]}") if self.seen[signature] > 3 else None


ALL = (MaskConfig, RareConfig, FirstConfig)


class BrokenConfig(PartConfig):
    """A document step that cannot do its work."""

    kind: str = "broken"

    def build(self) -> "Broken":
        return Broken()


class Broken:
    def apply(self, document: Document) -> Document | Drop:
        raise ValueError("no such luck")
