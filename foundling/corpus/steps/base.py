"""What a step is. Two kinds: one that looks at a document alone, and one that must know the others.

A step file holds `REASONS` (drop reason -> what is true of a document that it takes) and `Config(PartConfig)` whose
`build()` gives a `DocumentStep` or a `CorpusStep`. Steps are built in each worker and must be deterministic.
"""

from typing import Protocol, runtime_checkable

from foundling.corpus.document import Document, Drop


@runtime_checkable
class DocumentStep(Protocol):
    """Looks at one document at a time, in any order, in parallel."""

    def apply(self, document: Document) -> Document | Drop:
        """The document itself (keep), a changed one, or a Drop."""
        ...


@runtime_checkable
class CorpusStep(Protocol):
    """Must know the documents before: `signature` runs in parallel, `admit` once, in the corpus's order."""

    def signature(self, document: Document) -> bytes:
        """The few bytes that `admit` needs to know of a document."""
        ...

    def admit(self, signature: bytes) -> Drop | None:
        """Whether the next document of the corpus goes. Sees every document that reached this step, in order."""
        ...
