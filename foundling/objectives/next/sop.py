"""Sentence-order prediction: do A and B stand in their order, or changed (Lan et al. 2020, arXiv:1909.11942, 3.1)."""

from collections.abc import Callable

from foundling.objectives.next.base import NextConfig, Segment


class Config(NextConfig):
    kind: str = "sop"
    """Name of the part."""

    def build(self) -> "SentenceOrder":
        return SentenceOrder()


class SentenceOrder:
    other_documents = False
    whole_sentences = True

    def twist(self, first: Segment, second: Segment, other: Callable[[int], Segment]) -> tuple[Segment, Segment]:
        """The same two segments, changed about."""
        return second, first
