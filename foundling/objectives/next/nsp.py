"""Next-sentence prediction: does B follow A, or is it of another document (Devlin et al. 2019, section 3.1, task 2)."""

from collections.abc import Callable

from foundling.objectives.next.base import NextConfig, Segment


class Config(NextConfig):
    kind: str = "nsp"
    """Name of the part."""

    def build(self) -> "NextSentence":
        return NextSentence()


class NextSentence:
    other_documents = True
    whole_sentences = False

    def twist(self, first: Segment, second: Segment, other: Callable[[int], Segment]) -> tuple[Segment, Segment]:
        """B from another document, so never the true next."""
        return first, other(len(second))
