"""The unit of a corpus: one document with its tags."""

from dataclasses import dataclass, field, replace
from typing import Any


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

    def with_text(self, text: str) -> "Document":
        """The document with another text; itself when the text is equal."""
        return self if text == self.text else replace(self, text=text)


@dataclass(frozen=True, slots=True)
class Drop:
    """A step's answer that a document goes. `reason` is a key of the step's `REASONS` and says what holds of it."""

    reason: str
