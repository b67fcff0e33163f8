"""JSON: a list of objects, or an object whose `data` is one."""

import re
from collections.abc import Iterator

from foundling.corpus.readers.base import TextConfig
from foundling.corpus.sniff import format_of
from foundling.corpus.streams import Stream
from foundling.tasks.formats._elements import elements
from foundling.tasks.formats.base import LIKELY, MAYBE, NO, Fault, Row

SUFFIXES = (".json",)
_DATA = re.compile(r'"data"\s*:\s*\[')


class Config(TextConfig):
    """How the elements of one file are read."""

    def build(self) -> "Json":
        return Json(self.encoding)


class Json:
    def __init__(self, encoding: str | None) -> None:
        self.encoding = encoding

    def read(self, stream: Stream) -> Iterator[Row | Fault]:
        for where, element in elements(stream, self.encoding):
            yield element if isinstance(element, Fault) else Row(where, element)


def certainty(head: bytes, text: str) -> int:
    """Any JSON document may be meant to be this; a list is, and an object with a list under `data`."""
    if not text or format_of(head, None, is_suffix=True) != "json":
        return NO
    return LIKELY if text.lstrip().startswith("[") or _DATA.search(text) else MAYBE
