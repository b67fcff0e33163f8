"""Where an answer begins and where it ends: two scores for each token that may (Devlin et al. 2019, section 4.2)."""

from typing import Annotated

from pydantic import Field

from foundling.heads import base


class Config(base.HeadConfig):
    kind: str = "span"
    """Name of the part."""
    num_classes: Annotated[int, Field(ge=2, le=2)] = 2
    """Scores of a token: beginning and end."""

    def build(self, width: int) -> "Span":
        return Span(self, width)


class Span(base.Head):
    """Scores [M, 2] at the batch's `target_index_M`."""
