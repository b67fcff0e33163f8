"""Each step against what it says it does."""

import pytest

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.corpus.document import Document, Drop
from foundling.corpus.steps import length


def made(text: str) -> Document:
    return Document(id="a", text=text, source="s", domain="d")


def test_length_counts_characters_without_outer_space() -> None:
    step = length.Config(kind="length", min_characters=3, max_characters=5).build()
    for text, reason in [("  ab\n\n", "too_short"), ("abc", None), ("字字字字字", None), ("abcdef", "too_long")]:
        assert step.apply(made(text)) == (Drop(reason) if reason else made(text))
    assert length.Config(kind="length").build().apply(made(" \n\t")) == Drop("too_short")


def test_length_bounds_must_be_ordered() -> None:
    with pytest.raises(UserError, match="max_characters must be at least min_characters"):
        validate(length.Config, {"min_characters": 10, "max_characters": 5}, "length")
