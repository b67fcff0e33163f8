"""The unit of a corpus: one document with its tags."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Document:
    """One text and what is known of it."""

    id: str
    """Stable name: path inside the source, and `:line` in a file of many documents."""
    text: str
    source: str
    """Where it comes from: the folder's or file's name unless set."""
    domain: str
    """What it is about: the source's name unless set. Mixtures and reports go by it."""
    language: str | None = None
    """ISO 639-1 code, or None where no step has told it."""
    split: str | None = None
    """`train` or `valid`; None while the corpus is being built."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Whatever else the input said of the document."""
    found: dict[str, int] = field(default_factory=dict, compare=False)
    """What the step that gave this document found in it, such as `{"email": 2}`. Summed up by step for the manifest
    and the report, then forgotten: it is no data of the document."""

    def with_text(self, text: str, **found: int) -> "Document":
        """The document with another text and what was found on the way; itself where nothing differs or was found."""
        told = {name: count for name, count in found.items() if count}
        return self if text == self.text and not told else replace(self, text=text, found=told)


class Size(NamedTuple):
    """How much text a document has."""

    num_bytes: int
    """In UTF-8."""
    num_words: int
    """By `scripts.words_of`."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A step's answer that a document goes. `reason` is a key of the step's `REASONS` and says what holds of it."""

    reason: str
    detail: str | None = None
    """The figure that decided it, short and for people: `alpha share 0.41 < 0.6`."""
