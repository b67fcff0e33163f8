"""Documents that are too short or too long to learn from."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from foundling.core.config import PartConfig
from foundling.core.units import Count
from foundling.corpus.document import Document, Drop

REASONS = {
    "too_short": "fewer characters than min_characters, white space at both ends not counted",
    "too_long": "more characters than max_characters, white space at both ends not counted",
}


class Config(PartConfig):
    """Bounds on a document's length."""

    min_characters: Annotated[Count, Field(ge=0)] = 1
    """Fewest Unicode characters to keep, >= 0. The default takes empty and blank documents only."""
    max_characters: Annotated[Count, Field(ge=1)] | None = None
    """Most Unicode characters to keep, >= 1; None: no bound."""

    @model_validator(mode="after")
    def _ordered(self) -> "Config":
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(f"max_characters must be at least min_characters ({self.min_characters})")
        return self

    def build(self) -> "Length":
        return Length(self.min_characters, self.max_characters)


@dataclass(frozen=True)
class Length:
    min_characters: int
    max_characters: int | None

    def apply(self, document: Document) -> Document | Drop:
        num_characters = len(document.text.strip())
        if num_characters < self.min_characters:
            return Drop("too_short")
        if self.max_characters is not None and num_characters > self.max_characters:
            return Drop("too_long")
        return document
