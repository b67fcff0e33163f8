"""JSON lines: an object a line."""

import json
from collections.abc import Iterator

from foundling.corpus.readers.base import TextConfig
from foundling.corpus.sniff import format_of
from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import LIKELY, MAYBE, NO, Fault, Row, is_sound, text_lines

SUFFIXES = (".jsonl", ".ndjson")


class Config(TextConfig):
    """How the lines of one file are read."""

    def build(self) -> "JsonLines":
        return JsonLines(self.encoding)


class JsonLines:
    def __init__(self, encoding: str | None) -> None:
        self.encoding = encoding

    def read(self, stream: Stream) -> Iterator[Row | Fault]:
        for number, line in text_lines(stream, self.encoding):
            if isinstance(line, Fault):
                yield line
            elif line.strip():
                yield _row(str(number), line)


def _row(where: str, line: str) -> Row | Fault:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else f"it is not JSON: {error}"
        return Fault(where, reason)
    if not isinstance(data, dict):
        return Fault(where, "it is not a JSON object")
    if "\\u" in line and not is_sound(data):
        return Fault(where, "it holds half a character (one surrogate of a pair)")
    return Row(where, data)


def certainty(head: bytes, text: str) -> int:
    """An object a line; where there is one line only, that may be meant."""
    kind = format_of(head, None, is_suffix=True) if text else None
    return LIKELY if kind == "jsonl" else MAYBE if kind == "json" and text.lstrip().startswith("{") else NO
