"""JSON lines: a line is a document; its other fields become `meta`."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Self

from foundling.corpus.encodings import settle_encoding
from foundling.corpus.readers._fields import (
    MAX_BYTES_TO_GUESS,
    NUM_ROWS_TO_GUESS,
    TEXT_FIELD,
    guess_text_field,
    no_text_field,
)
from foundling.corpus.readers.base import (
    MAX_DOCUMENT_BYTES,
    Problem,
    Record,
    RowsConfig,
    encoding_problems,
    text_pieces,
)
from foundling.corpus.streams import Stream, decode, lines, recoded, scrub

SUFFIXES = (".jsonl", ".ndjson")


class Config(RowsConfig):
    """How the lines of one file are read."""

    def settle(self, stream: Stream, name: str) -> Self:
        encoding = settle_encoding(stream, self.encoding)
        field = self.text_field
        if encoding is not None and field is None:
            rows = _first_rows(stream, encoding)
            field = guess_text_field(rows) if rows else TEXT_FIELD
        return self.model_copy(update={"encoding": encoding, "text_field": field})

    def build(self) -> "JsonLinesReader":
        return JsonLinesReader(self.text_field, self.encoding)


class JsonLinesReader:
    """text_field: None where none could be guessed: then the file is a problem as a whole."""

    def __init__(self, text_field: str | None, encoding: str | None) -> None:
        self.text_field = text_field
        self.encoding = encoding

    def read(self, stream: Stream) -> Iterator[Record | Problem]:
        pieces = text_pieces(stream, self.encoding)
        if isinstance(pieces, Problem):
            yield pieces
            return
        num_bad_bytes = 0
        for number, line in lines(pieces, MAX_DOCUMENT_BYTES):
            if line is None:
                yield Problem("line_too_long", f"line {number} is longer than {MAX_DOCUMENT_BYTES} bytes")
                continue
            content, bad = decode(line)
            num_bad_bytes += bad
            if not content.strip():
                continue
            row = _object(content)
            if row is None:
                yield Problem("malformed_line", f"line {number} is not a JSON object")
                continue
            if self.text_field is None:
                yield Problem("no_text_field", no_text_field(list(row)))
                return
            text = row.pop(self.text_field, None)
            if isinstance(text, str):
                yield Record(scrub(text), f":{number}", row)
            else:
                yield Problem("no_text", f"line {number} has no text in {self.text_field!r}")
        yield from encoding_problems(stream, num_bad_bytes)


def _first_rows(stream: Stream, encoding: str) -> list[dict[str, Any]]:
    rows, num_bytes = [], 0
    for _, line in islice(lines(recoded(stream, encoding), MAX_DOCUMENT_BYTES), NUM_ROWS_TO_GUESS):
        if line and (row := _object(decode(line)[0])) is not None:
            rows.append(row)
            num_bytes += len(line)
            if num_bytes > MAX_BYTES_TO_GUESS:
                break
    return rows


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # the caller counts and tells the line
        return None
    return value if isinstance(value, dict) else None
