"""One JSON document a file: a list of objects (or strings), an object with such a list inside, or one object.

Read piece by piece: no more than one element is in memory, however long the list. A malformed element is left out and
the reading goes on at the next place where an object follows an object.
"""

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Self

from foundling.corpus.encodings import settle_encoding
from foundling.corpus.readers._fields import (
    MAX_BYTES_TO_GUESS,
    NUM_ROWS_TO_GUESS,
    PROSE_CHARACTERS,
    TEXT_FIELD,
    guess_text_field,
    names_a_text,
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
from foundling.corpus.streams import Stream, scrub

SUFFIXES = (".json",)
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
_NEXT_OBJECT = re.compile(r"\}\s*,?\s*(?=\{)")
_LIST_OF_OBJECTS = re.compile(r"\[\s*[{\"]")
# A value that is cut off may look malformed only this near to the end of what is there: a half `\u00e4` or `-1.5e+`.
_NEAR_END = 16
_KEPT_CHARACTERS = 1024
_TOO_LONG = f"it is longer than {MAX_DOCUMENT_BYTES} bytes"


class Config(RowsConfig):
    """How the elements of one file are read."""

    list_field: str | None = None
    """Where the file is one object: the key of the list that holds the documents; None: the first list, told."""

    def settle(self, stream: Stream, name: str) -> Self:
        encoding = settle_encoding(stream, self.encoding)
        if encoding is None:
            return self
        start = stream.peek(MAX_BYTES_TO_GUESS)
        walk = Walk(Buffer([start.decode(encoding, errors="ignore")]), self.list_field)
        rows = []
        for _, item in walk.items(guess=self.list_field is None):
            if isinstance(item, Problem):
                break
            rows.append(item if isinstance(item, dict) else {TEXT_FIELD: item})
            if len(rows) == NUM_ROWS_TO_GUESS:
                break
        field = self.text_field or (guess_text_field(rows) if rows else TEXT_FIELD)
        return self.model_copy(update={"encoding": encoding, "text_field": field, "list_field": walk.list_field})

    def build(self) -> "JsonReader":
        return JsonReader(self.text_field, self.list_field, self.encoding)


class JsonReader:
    def __init__(self, text_field: str | None, list_field: str | None, encoding: str | None) -> None:
        self.text_field = text_field
        self.list_field = list_field
        self.encoding = encoding

    def read(self, stream: Stream) -> Iterator[Record | Problem]:
        pieces = text_pieces(stream, self.encoding)
        if isinstance(pieces, Problem):
            yield pieces
            return
        decoded = Decoded(pieces)
        walk = Walk(Buffer(decoded), self.list_field)
        for number, item in walk.items(guess=False):
            if isinstance(item, Problem):
                yield item
            elif isinstance(item, str):
                yield Record(scrub(item), f":{number}")
            elif self.text_field is None:
                yield Problem("no_text_field", no_text_field(list(item)))
                return
            else:
                text = item.pop(self.text_field, None)
                if isinstance(text, str):
                    yield Record(scrub(text), f":{number}", item)
                else:
                    yield Problem("no_text", f"element {number} has no text in {self.text_field!r}")
        yield from encoding_problems(stream, decoded.num_bad)


class Decoded:
    """UTF-8 pieces as text; counts what had to be replaced.

    errors: what becomes of bytes that are not UTF-8, `replace` or `surrogateescape` (which is not counted).
    """

    def __init__(self, pieces: Iterable[bytes], errors: Literal["replace", "surrogateescape"] = "replace") -> None:
        self._pieces = pieces
        self._errors = errors
        self.num_bad = 0

    def __iter__(self) -> Iterator[str]:
        decoder = getincrementaldecoder("utf-8")(errors=self._errors)
        for piece in self._pieces:
            text = decoder.decode(piece)
            if "\ufffd" in text:
                self.num_bad += text.count("\ufffd") - piece.count(b"\xef\xbf\xbd")
            yield text
        yield decoder.decode(b"", final=True)


class _Malformed(Exception):
    """At a place of the buffer stands no JSON, or too much of it."""

    def __init__(self, why: str, at: int) -> None:
        super().__init__(why)
        self.at = at


class Buffer:
    """A window on the text of a file. Positions are into `text`, and `trim` moves them."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._decoder = json.JSONDecoder()
        self._lines_before = 1
        self.text = ""
        self.at = 0

    @property
    def line(self) -> int:
        return self._lines_before + self.text.count("\n", 0, self.at)

    def more(self, num_characters: int = 1) -> bool:
        """Takes in at least so many characters more, unless the file ends; whether any came."""
        before = len(self.text) - self.at
        parts = [self.text[self.at :]]
        while num_characters > 0 and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            num_characters -= len(piece)
        self._lines_before += self.text.count("\n", 0, self.at)
        self.text, self.at = "".join(parts), 0
        return len(self.text) > before

    def peek(self) -> str:
        """The next character that is no white space, or nothing at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        """The JSON value that begins here. Raises _Malformed and stays where it is."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self.text, self.at)
            except RecursionError:
                raise _Malformed("it is nested too deeply", self.at) from None
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _NEAR_END
                length = len(self.text) - self.at
                if not is_cut:
                    raise _Malformed(error.msg, error.pos) from None
                if length > MAX_DOCUMENT_BYTES:
                    raise _Malformed(_TOO_LONG, self.at) from None
                if not self.more(max(length, 1)):
                    raise _Malformed(error.msg, self.at) from None
                continue
            except ValueError as error:  # an integer of more digits than Python reads
                raise _Malformed(str(error), self.at) from None
            if end == len(self.text) and self.more():
                continue  # a number may go on
            self.at = end
            return value

    def next_object(self, start: int) -> dict[str, Any] | None:
        """The next object at or after `start` that follows the end of another one, read; None where there is none."""
        self.at = start
        while True:
            match = _NEXT_OBJECT.search(self.text, self.at)
            if match is None:
                self.at = max(self.at, len(self.text) - _KEPT_CHARACTERS)
                if not self.more():
                    self.at = len(self.text)
                    return None
                continue
            self.at = match.end()
            try:
                value = self.value()
            except _Malformed:  # a piece of the damaged element; `at` is still its brace
                self.at += 1
                continue
            if isinstance(value, dict):
                return value


Item = dict[str, Any] | str | Problem


class Walk:
    """(number of the element, from 1; the element or what is wrong with it), through the whole file."""

    def __init__(self, buffer: Buffer, list_field: str | None) -> None:
        self._buffer = buffer
        self.list_field = list_field
        self.keys: list[str] = []
        """Keys of the last object that was searched for its list."""
        self.has_list = False
        """Whether a list was met that holds the elements."""
        self._number = 0

    def items(self, *, guess: bool) -> Iterator[tuple[int, Item]]:
        """guess: whether `list_field` is to be found; the buffer must then be one piece."""
        while char := self._buffer.peek():
            if char == "[":
                self._buffer.at += 1
                self.has_list = True
                yield from self._elements()
            else:
                if char == "{" and guess and self._number == 0:
                    self.list_field = self._guess_list()
                if char == "{" and self.list_field is not None:
                    yield from self._list_inside(self.list_field)
                else:
                    yield from self._element()

    def _elements(self) -> Iterator[tuple[int, Item]]:
        """The elements up to the end of the list that has begun."""
        while (char := self._buffer.peek()) != "]":
            if not char:
                yield self._number, Problem("damaged_file", "it ends before its list does")
                return
            if char == ",":
                self._buffer.at += 1
            else:
                yield from self._element()
        self._buffer.at += 1

    def _element(self) -> Iterator[tuple[int, Item]]:
        self._number += 1
        try:
            value = self._buffer.value()
        except _Malformed as fault:
            yield self._number, self._problem(fault)
            value = self._buffer.next_object(fault.at)
            if value is None:
                return
            self._number += 1
        if isinstance(value, dict | str):
            yield self._number, value
        else:
            yield self._number, Problem("malformed_element", f"element {self._number} is no object")

    def _list_inside(self, field: str) -> Iterator[tuple[int, Item]]:
        """The elements of the list under the key `field` of the object that begins here; the rest is passed over."""
        try:
            for key in self._keys():
                if key == field and self._buffer.peek() == "[":
                    self._buffer.at += 1
                    self.has_list = True
                    yield from self._elements()
                else:
                    self._buffer.value()
        except _Malformed as fault:
            yield self._number, self._problem(fault)
            self._buffer.next_object(len(self._buffer.text))  # nothing more: to the end

    def _keys(self) -> Iterator[str]:
        """The keys of the object that begins here, each with the buffer before its value, which the caller takes."""
        buffer, self.keys = self._buffer, []
        buffer.at += 1
        while (char := buffer.peek()) != "}":
            if char == ",":
                buffer.at += 1
                continue
            if char != '"':
                raise _Malformed("a key must be in double quotes", buffer.at)
            key = buffer.value()
            if buffer.peek() != ":":
                raise _Malformed("a colon must follow a key", buffer.at)
            buffer.at += 1
            buffer.peek()
            self.keys.append(key)
            yield key
        buffer.at += 1

    def _guess_list(self) -> str | None:
        """The key of the first list of objects or of long strings, unless a key before it names a text."""
        start, found = self._buffer.at, None
        try:
            for key in self._keys():
                match = _LIST_OF_OBJECTS.match(self._buffer.text, self._buffer.at)
                if match and (match[0][-1] == "{" or self._is_prose(match.end())):
                    found = key
                    break
                value = self._buffer.value()
                if isinstance(value, str) and names_a_text(key):
                    break
        except _Malformed:
            found = None
        self._buffer.at = start
        return found

    def _is_prose(self, start: int) -> bool:
        end = self._buffer.text.find('"', start)
        return end < 0 or end - start >= PROSE_CHARACTERS

    def _problem(self, fault: _Malformed) -> Problem:
        kind = "line_too_long" if str(fault) == _TOO_LONG else "malformed_element"
        return Problem(kind, f"element {self._number} (line {self._buffer.line}) is left out: {fault}")
