"""JSON lines: an object a line."""

import json
from collections.abc import Iterator

from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import FormatConfig, Row

SUFFIXES = (".jsonl", ".ndjson")


class Config(FormatConfig):
    kind: str = "jsonl"
    """Name of the part."""

    def rows(self, stream: Stream) -> Iterator[Row]:
        for number, line in self.lines(stream):
            if isinstance(line, Row):
                yield line
            elif line.strip():
                yield _row(str(number), line)


def _row(where: str, line: str) -> Row:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:  # the caller tells it
        return Row(where, None, f"it is no JSON: {error}")
    return Row(where, data) if isinstance(data, dict) else Row(where, None, "it is no JSON object")


def looks_like(head: str) -> bool:
    first = head.lstrip().split("\n", 1)[0]
    return first.startswith("{") and first.rstrip().endswith("}")
