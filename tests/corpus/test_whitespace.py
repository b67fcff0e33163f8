"""What the step `whitespace` evens out, and what keeps its shape."""

import time

import pytest

from foundling.corpus.document import Document
from foundling.corpus.steps import whitespace


def cleaned(text: str, **settings: object) -> Document:
    given = Document(id="a", text=text, source="s", domain="d")
    answer = whitespace.Config(kind="whitespace", **settings).build().apply(given)
    assert isinstance(answer, Document)
    return answer


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("one  \ntwo\t \n\nthree\u3000\n", "one\ntwo\n\nthree\n"),
        ("a\n\n\n\n\n\nb\n \n\t\n \n \nc", "a\n\n\nb\n\n\nc"),
        ("10\u00a0km, 1\u202f000\u2009€", "10 km, 1 000 €"),
        ("blanks\u00a0\n", "blanks\n"),
        ("def f():\n\treturn  1\n\n\nx = {\n    1: 2,\n}\n", None),
        ("  So much depends\n      upon\n\n\na red wheel\n   barrow", None),
        ("\u3000\u3000白日依山盡，\n\u3000\u3000黃河入海流。\n", None),
        ("| a  |  b |\n|----|----|\n", None),
    ],
)
def test_whitespace(given: str, wanted: str | None) -> None:
    once = cleaned(given)
    assert once.text == (given if wanted is None else wanted)
    assert cleaned(once.text).text == once.text


def test_whitespace_counts_and_settings() -> None:
    assert cleaned("a \n\n\n\n\nb\u00a0c").found == {"unusual_space": 1, "line_end_blanks": 1, "blank_lines": 1}
    assert cleaned("a\n\n\nb", max_blank_lines=0).text == "a\nb"
    assert cleaned("a\u00a0b", plain_spaces=False).text == "a\u00a0b"


def test_whitespace_is_linear_in_a_run_of_blanks() -> None:
    start = time.process_time()
    cleaned(" \n" + " " * 1_000_000 + "x")
    assert time.process_time() - start < 1
