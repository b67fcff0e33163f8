"""What a format of task files is: one file to rows, each a mapping of fields, or the reason why it is none.

A format file holds `SUFFIXES` (with the dot, lower case, without a compression's suffix), `looks_like(head)`, and
`Config` with `rows(stream)`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.corpus.encodings import NamedEncoding, settle_encoding
from foundling.corpus.readers.base import MAX_DOCUMENT_BYTES, Problem, text_pieces
from foundling.corpus.streams import Stream, decode, lines

FOLDER = "tasks.formats"


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    where: str
    """Its place in the file: `17` for line 17, a question's id."""
    data: Mapping[str, Any] | None
    """Its fields; None: it has none."""
    fault: str = ""
    """Why it has none."""


class FormatConfig(PartConfig):
    """What all formats share."""

    encoding: NamedEncoding | None = None
    """Encoding of the file (`gb18030`, `cp1252`, ...); None: UTF-8, else guessed from the bytes."""

    def rows(self, stream: Stream) -> Iterator[Row]:
        """The rows of one file, in order. UserError: the file as a whole cannot be read so."""
        raise NotImplementedError(type(self))

    def lines(self, stream: Stream) -> Iterator[tuple[int, str | Row]]:
        """(number, line) for each line with something in it; a line that is no text is a row with its fault."""
        pieces = text_pieces(stream, settle_encoding(stream, self.encoding))
        if isinstance(pieces, Problem):
            raise UserError(f"{stream.path.name} must be text", got=pieces.detail)
        for number, line in lines(pieces, MAX_DOCUMENT_BYTES):
            if line is None:
                yield number, Row(str(number), None, f"the line is longer than {MAX_DOCUMENT_BYTES >> 20} MiB")
                continue
            text, num_bad_bytes = decode(line)
            if num_bad_bytes:
                yield number, Row(str(number), None, f"{num_bad_bytes} bytes are not UTF-8")
            else:
                yield number, text.rstrip("\r")
        if stream.damage:
            yield 0, Row("end", None, f"the file is damaged: {stream.damage}")

    def text(self, stream: Stream) -> str:
        """The whole file."""
        found = []
        for _, line in self.lines(stream):
            if isinstance(line, Row):
                raise UserError(f"{stream.path.name} must be whole UTF-8 text", got=f"line {line.where}: {line.fault}")
            found.append(line)
        return "\n".join(found)
