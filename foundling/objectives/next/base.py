"""What is asked about a row of two segments: `objectives/next/NAME.py` says how a false pair is made."""

from collections.abc import Callable
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from foundling.core.config import PartConfig
from foundling.core.units import Count, Share
from foundling.data.pairs import LENGTH_STEP

Segment = np.ndarray
"""Token ids, int64, one-dimensional."""


class Question(Protocol):
    """Built from a part's `Config.build()`."""

    other_documents: bool
    """Whether `twist` reads other documents than the pair's own."""

    whole_sentences: bool
    """Whether both segments are whole sentences on both sides, so that where they begin and end does not tell which of
    them stood first."""

    def twist(self, first: Segment, second: Segment, other: Callable[[int], Segment]) -> tuple[Segment, Segment]:
        """A true pair to a false one. other: reads at most so many tokens of another document."""
        ...


class NextConfig(PartConfig):
    weight: Annotated[float, Field(gt=0)] = 1.0
    """What the question's loss, a mean over rows, counts beside the masked-language loss."""
    short_rate: Annotated[Share, Field(ge=0, le=1)] = 0.1
    """Share of rows that are cut to a random length, so that short texts are seen in training too."""
    shortest: Annotated[Count, Field(ge=5)] = LENGTH_STEP
    """The least of these random lengths, tokens with [CLS] and [SEP]; lengths come in steps of 16."""

    def build(self) -> Question:
        raise NotImplementedError(type(self))
