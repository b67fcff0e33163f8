"""Exact duplicates: against a plain set, and what `normalised` makes equal."""

import random
from hashlib import sha256

import pytest

from foundling.corpus.document import Document, Drop
from foundling.corpus.steps import exact


def made(text: str, name: str = "a") -> Document:
    return Document(id=name, text=text, source="s", domain="d")


def test_the_first_stays_through_all_runs_and_is_named() -> None:
    """Small runs force every merge; the answers must be those of a plain dict."""
    step, seen, rng = exact.Exact(max_recent=7), dict[str, int](), random.Random(0)
    for number in range(3000):
        text = str(rng.randrange(900))
        drop = step.admit(step.signature(made(text, f"n{number}")))
        assert drop == (Drop("duplicate", f"same as n{seen[text]}") if text in seen else None)
        seen.setdefault(text, number)
    sizes = [len(hashes) for hashes, _ in step._runs]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) < 12


def test_hashes_that_end_in_zero_bytes_are_told_apart() -> None:
    step = exact.Exact(max_recent=1)
    for name in (b"\x00" * 16, b"a" + b"\x00" * 15, b"a" * 15 + b"\x00", b"\xff" * 16):
        assert step.admit(name + b"id") is None
        assert step.admit(name + b"other") == Drop("duplicate", "same as id")


def test_signature_is_of_the_text() -> None:
    assert exact.Exact().signature(made("é", "id")) == sha256("é".encode()).digest()[:16] + b"id"


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("Hello, World!", "“hello…   world”\n", True),
        ("Straße", "STRASSE", True),
        ("ﬁne Ａ", "fine a", True),
        ("海上生明月，天涯共此時。", "海上生明月\n天涯共此時", True),
        ("e\u0301t\u00e9", "\u00e9te\u0301", True),
        ("soft\u00adhyphen", "softhyphen", True),
        ("3 + 4", "3 - 4", False),
        ("a < b", "a > b", False),
        ("é + 4", "é - 4", False),
        ("row 12", "row 21", False),
        ("𝒳 🙂", "𝒴 🙂", False),
        ("🙂", "🙃", False),
        ("...", "!!!", False),
        ("“”", "«»", False),
        ("", " ", False),
    ],
)
def test_normalised(one: str, other: str, equal: bool) -> None:
    step = exact.Config(kind="exact", equality="normalised").build()
    assert step.admit(step.signature(made(one))) is None
    assert (step.admit(step.signature(made(other))) is not None) == equal
    plain = exact.Config(kind="exact").build()
    assert plain.admit(plain.signature(made(one))) is plain.admit(plain.signature(made(other))) is None
