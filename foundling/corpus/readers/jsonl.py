"""JSON lines: a line is a document; its other fields become `meta`."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Self

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.corpus.readers.base import Problem, Record
from foundling.corpus.streams import Stream, binary_reason, decode, lines, scrub

SUFFIXES = (".jsonl", ".ndjson")
MAX_LINE_BYTES = 32 << 20
_GUESSES = ("text", "content", "body", "document", "article", "raw_content", "paragraph", "passage", "sentence")
_NUM_LINES_TO_GUESS = 100


class Config(PartConfig):
    """How the lines of one file are read."""

    text_field: str | None = None
    """Key of the text; None: `text`, else the first of `content`, `body`, ... that holds text, which is told."""

    def settle(self, stream: Stream, name: str) -> Self:
        """The config with the text's key fixed, guessed from the first lines; a UserError where none can be meant."""
        if self.text_field is not None or binary_reason(stream.head):
            return self
        keys: list[str] = []
        for _, line in islice(lines(stream, MAX_LINE_BYTES), _NUM_LINES_TO_GUESS):
            row = _object(decode(line)[0]) if line else None
            if row is None:
                continue
            keys = keys or list(row)
            texts = [key for key, value in row.items() if isinstance(value, str)]
            guess = next((key for key in _GUESSES if key in texts), texts[0] if len(texts) == 1 else None)
            if guess:
                if guess != "text":
                    logger.warning(
                        "%s has no field 'text'; %r is read as the text (text_field=KEY sets it)", name, guess
                    )
                return self.model_copy(update={"text_field": guess})
        if keys:
            raise UserError(
                f"{name} must have its text in a field that can be guessed ({', '.join(_GUESSES[:3])}, ...)",
                got=f"the fields {', '.join(keys[:12])}",
                do="set text_field=KEY",
            )
        return self.model_copy(update={"text_field": "text"})

    def build(self) -> "JsonLinesReader":
        return JsonLinesReader(self.text_field or "text")


class JsonLinesReader:
    def __init__(self, text_field: str) -> None:
        self.text_field = text_field

    def read(self, stream: Stream) -> Iterator[Record | Problem]:
        if reason := binary_reason(stream.head):
            yield Problem("binary", reason)
            return
        num_bad_bytes = 0
        for number, line in lines(stream, MAX_LINE_BYTES):
            if line is None:
                yield Problem("line_too_long", f"line {number} is longer than {MAX_LINE_BYTES} bytes")
                continue
            content, bad = decode(line)
            num_bad_bytes += bad
            if not content.strip():
                continue
            row = _object(content)
            if row is None:
                yield Problem("malformed_line", f"line {number} is not a JSON object")
                continue
            text = row.pop(self.text_field, None)
            if isinstance(text, str):
                yield Record(scrub(text), f":{number}", row)
            else:
                yield Problem("no_text", f"line {number} has no text in {self.text_field!r}")
        if num_bad_bytes:
            yield Problem("not_utf8", f"{num_bad_bytes} bytes are not UTF-8", num_bad_bytes)


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # the caller counts and tells the line
        return None
    return value if isinstance(value, dict) else None
