"""What a format of task files is: one file to rows of named fields and faults, in the file's order.

A format file holds `SUFFIXES` (with the dot, lower case, without a compression's suffix), `certainty(head, text)`,
which gives one of the grades below, and `Config` with `settle(stream, name)`, which fixes what depends on the file, and
`build()`, which gives a `Format`. A field that the user left at None and `settle` set is a guess, and is told.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from foundling.core.errors import UserError
from foundling.corpus.readers.base import MAX_DOCUMENT_BYTES, Problem, text_pieces
from foundling.corpus.streams import Stream, decode, lines

FOLDER = "tasks.formats"

NO, MAYBE, LIKELY, SURE = range(4)
"""Grades of `certainty`, whether a file that begins so is of a format. head: its first 64 KiB, decompressed; text: the
same as text, empty where it is none. From LIKELY on, what the file's name says is overruled."""


@dataclass(frozen=True, slots=True)
class Row:
    where: str
    """Its place in the file, unique there: `17` for line 17, `element 3`, `question 57`."""
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that cannot be used."""

    where: str
    reason: str
    """What is wrong, in words that go on from its place: `it is not a JSON object`."""


class Format(Protocol):
    """Reads one file; no more of it is in memory than a row, or for JSON an element."""

    def read(self, stream: Stream) -> Iterator[Row | Fault]:
        """UserError: the file as a whole is not of this format."""
        ...


def pieces_of(stream: Stream, encoding: str | None) -> Iterator[bytes]:
    """The file as UTF-8. UserError: it is no text that can be read."""
    pieces = text_pieces(stream, encoding)
    if isinstance(pieces, Problem):
        raise UserError(f"{stream.path.name} must be text", got=pieces.detail)
    return pieces


def text_lines(stream: Stream, encoding: str | None) -> Iterator[tuple[int, str | Fault]]:
    """(number from 1, line without its end, or what is wrong with it), for every line. UserError as `pieces_of`."""
    for number, line in lines(pieces_of(stream, encoding), MAX_DOCUMENT_BYTES):
        if line is None:
            yield number, Fault(str(number), f"the line is longer than {MAX_DOCUMENT_BYTES >> 20} MiB")
            continue
        text, num_bad_bytes = decode(line)
        if num_bad_bytes:
            yield number, Fault(str(number), f"{num_bad_bytes} bytes of the line are not UTF-8")
        elif lost(text, encoding):
            yield number, Fault(str(number), f"the line holds what is not {encoding}")
        else:
            yield number, text.removesuffix("\r")


def lost(text: str, encoding: str | None) -> bool:
    """Whether something could not be read in an encoding other than UTF-8: it has become U+FFFD."""
    return encoding not in (None, "utf-8") and "\ufffd" in text


def is_sound(data: Any) -> bool:
    """Whether JSON data can be written as UTF-8: JSON may hold one half of a surrogate pair."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
