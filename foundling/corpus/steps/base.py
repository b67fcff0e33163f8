"""What a step is. Three kinds: one that looks at a document alone, and two that must know the others.

A step file holds `REASONS` (drop reason -> what is true of a document that it takes) and `Config(PartConfig)` whose
`build()` gives one of the three. Steps are built in each worker and must be deterministic, so a build that is killed
and started again gives the same bytes. A `Config` may also have

- `input_hashes(self) -> dict[str, str]`, name -> sha256, where a step reads files of its own (another corpus, an
  evaluation set, a trained classifier): they become inputs of the corpus, which is built again when they change.

A step that hides what nobody may read (`privacy`) has `redact(self, text) -> str`, which does the same to the samples
that people are shown (`corpus/redaction.py`).

A `CorpusStep` or `SurveyStep` may have `summary(self) -> dict`, plain data for the manifest and the report, asked for
once, after the last document.
"""

from collections.abc import Iterator
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


@runtime_checkable
class SurveyStep(Protocol):
    """Must know all documents before it decides on the first: `signature` in parallel, then `survey`, then `decide`."""

    def signature(self, document: Document) -> bytes:
        """What `survey` needs to know of a document; kept on disk between the two passes."""
        ...

    def survey(self, signatures: Iterator[bytes]) -> None:
        """Looks once through the signatures of every document that reached this step, in the corpus's order.

        There may be millions: keep what is needed, not all of them.
        """
        ...

    def decide(self, number: int, document: Document) -> Document | Drop:
        """The second pass, in the same order. number: counts the documents that reached this step, from 0."""
        ...


Step = DocumentStep | CorpusStep | SurveyStep
