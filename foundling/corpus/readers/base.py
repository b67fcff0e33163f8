"""What a reader is: one file of a format to records and problems, in the file's order.

A reader file holds `SUFFIXES` (with the dot, lower case, without a compression's suffix, the best known first) and
`Config` with `settle(stream, name)`, which fixes what depends on the file, and `build()`. A field that the user left at
None and `settle` set is a guess: `inputs.settle` tells it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from foundling.core.config import PartConfig
from foundling.corpus.encodings import NamedEncoding, guess_encoding, settle_encoding
from foundling.corpus.streams import Stream, recoded

MAX_DOCUMENT_BYTES = 32 << 20
"""A line, row, element or page that is longer is left out, so that memory stays bounded."""


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
    "binary": "files left out: not text",
    "unknown_encoding": "files left out: not UTF-8, and their encoding could not be told",
    "not_utf8": "bytes that are not UTF-8, replaced by U+FFFD",
    "not_in_encoding": "characters that are not in the file's encoding, replaced by U+FFFD",
    "nul_bytes": "NUL bytes, removed",
    "malformed_line": "lines left out: not a JSON object",
    "malformed_element": "elements of a JSON file left out: not JSON, or not an object",
    "malformed_row": "rows left out: not as many fields as the header, or a quote that is never closed",
    "malformed_record": "WARC records left out: damaged",
    "no_text": "lines, rows or elements left out: no text in the text field",
    "no_text_field": "files left out: no field that holds the text",
    "line_too_long": "lines, rows, elements or pages left out: longer than 32 MiB",
    "damaged_archive": "compressed files of which a part could not be used",
    "damaged_file": "files of which a part could not be used",
    "other_content": "WARC records left out: neither HTML nor text",
    "unreadable": "files or folders that could not be opened or read",
    "loop": "folders left out: links that lead back to a folder above",
    "other_format": "files that are not what their name says, read as what they are",
    "cut": "documents that were cut off from a file larger than 8 MiB",
}
"""Every kind of problem, with what its count counts."""


class Reader(Protocol):
    """Reads one file; bounded memory, any size."""

    def read(self, stream: Stream) -> Iterator[Record | Problem]: ...


class TextConfig(PartConfig):
    """What all formats of text share."""

    encoding: NamedEncoding | None = None
    """Encoding of the file (`gb18030`, `big5`, `cp1252`, ...); None: UTF-8, else guessed from the bytes and told."""

    def settle(self, stream: Stream, name: str) -> Self:
        """The config with all that depends on the file fixed; `name` is for messages."""
        return self.model_copy(update={"encoding": settle_encoding(stream, self.encoding)})


class RowsConfig(TextConfig):
    """What all formats share that hold a document in a line, row or element with named fields."""

    text_field: str | None = None
    """Name of the field that holds the text; None: `text`, else guessed from the names and the first values, told."""


def text_pieces(stream: Stream, encoding: str | None) -> Iterator[bytes] | Problem:
    """The stream as UTF-8, or why that cannot be."""
    if encoding is None:
        guess = guess_encoding(stream)
        if guess.name is None:
            return Problem(guess.problem, guess.reason)
        encoding = guess.name
    return recoded(stream, encoding)


def encoding_problems(stream: Stream, num_bad_bytes: int) -> Iterator[Problem]:
    """What is to be told of a file's characters once it was read."""
    if num_bad_bytes:
        yield Problem("not_utf8", f"{num_bad_bytes} bytes are not UTF-8", num_bad_bytes)
    if bad := stream.num_bad_characters:
        yield Problem("not_in_encoding", f"{bad} characters are not in the encoding that it is read in", bad)
