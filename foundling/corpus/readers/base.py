"""What a reader is: one file of a format to records and problems, in the file's order.

A reader file holds `SUFFIXES` (with the dot, lower case, without a compression's suffix, the best known first) and
`Config` with `settle(stream, name)`, which fixes what depends on the file, and `build()`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from foundling.corpus.streams import Stream


@dataclass(frozen=True, slots=True)
class Record:
    """One document as it stands in its file. `suffix` makes its id unique in the file (`:17`), or is empty."""

    text: str
    suffix: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be used as it is. `count` is a number of `kind`'s own unit (bytes, lines, files)."""

    kind: str
    detail: str
    count: int = 1


PROBLEMS = {
    "binary": "files left out: not UTF-8 text",
    "not_utf8": "bytes that are not UTF-8, replaced by U+FFFD",
    "malformed_line": "lines left out: not a JSON object",
    "no_text": "lines left out: no text in the text field",
    "line_too_long": "lines left out: longer than 32 MiB",
    "damaged_archive": "compressed files whose end could not be used",
    "unreadable": "files that could not be opened or read",
    "cut": "documents that were cut off from a file larger than 8 MiB",
}
"""Every kind of problem, with what its count counts."""


class Reader(Protocol):
    """Reads one file; bounded memory, any size."""

    def read(self, stream: Stream) -> Iterator[Record | Problem]: ...
