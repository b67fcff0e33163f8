"""What `predict` reads from standard input: JSON or plain lines, whole characters, a byte order mark or none."""

import io
from typing import Any

import pytest

from foundling.cli.predict import _lines
from foundling.core.errors import UserError


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (b'{"text": "a"}\n\nb\n', [{"text": "a"}, "b"]),
        (b'\xef\xbb\xbf{"text": "a"}\n', [{"text": "a"}]),
        ("好\n".encode(), ["好"]),
    ],
)
def test_lines_are_json_or_texts(given: bytes, read: list[Any]) -> None:
    assert list(_lines(io.BytesIO(given))) == read


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (b'a\n{"text": \n', "line 2 must be JSON"),
        (b"\xff\n", "line 1 must be UTF-8 text"),
        (b'{"text": "ok \\ud83d"}\n', "line 1 must hold whole characters; got half of a surrogate pair"),
    ],
)
def test_a_line_that_is_neither_is_told_by_number(given: bytes, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        list(_lines(io.BytesIO(given)))
