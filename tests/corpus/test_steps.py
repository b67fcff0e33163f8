"""Each step against what it says it does."""

import random
from hashlib import sha256

import pytest

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.corpus.document import Document, Drop
from foundling.corpus.steps import exact, length


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


def test_exact_keeps_the_first_through_its_runs() -> None:
    """Small runs force every merge; the answers must be those of a plain set."""
    step, seen, rng = exact.Exact(max_recent=7), set(), random.Random(0)
    for _ in range(3000):
        text = str(rng.randrange(900))
        dropped = step.admit(step.signature(made(text))) is not None
        assert dropped == (text in seen)
        seen.add(text)
    sizes = [len(run) for run in step._runs]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) < 12


def test_exact_tells_hashes_apart_that_end_in_zero_bytes() -> None:
    step = exact.Exact(max_recent=1)
    for signature in (b"\x00" * 16, b"a" + b"\x00" * 15, b"a" * 15 + b"\x00", b"\xff" * 16):
        assert step.admit(signature) is None
        assert step.admit(signature) == Drop("duplicate")


def test_exact_signature_is_of_the_text() -> None:
    assert exact.Exact().signature(made("é")) == sha256("é".encode()).digest()[:16]
