"""JSON: a list of objects, or an object whose `data` is one."""

import json
import re
from collections.abc import Iterator

from foundling.core.errors import UserError
from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import FormatConfig, Row

SUFFIXES = (".json",)


class Config(FormatConfig):
    kind: str = "json"
    """Name of the part."""

    def rows(self, stream: Stream) -> Iterator[Row]:
        try:
            data = json.loads(self.text(stream))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{stream.path.name} must be JSON", got=str(error)) from error
        found = data.get("data") if isinstance(data, dict) else data
        if not isinstance(found, list):
            raise UserError(f'{stream.path.name} must hold a list of objects, or {{"data": [...]}}', got=_kind(data))
        for number, one in enumerate(found, 1):
            yield (
                Row(f"item {number}", one) if isinstance(one, dict) else Row(f"item {number}", None, "it is no object")
            )


def _kind(data: object) -> str:
    return f"an object with {', '.join(list(data)[:6])}" if isinstance(data, dict) else type(data).__name__


def looks_like(head: str) -> bool:
    return re.match(r'\s*(\[|\{\s*"data"\s*:\s*\[)', head) is not None
