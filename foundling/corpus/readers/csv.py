"""Comma- or tab-separated values (RFC 4180, and what spreadsheets make of it): a row is a document.

A quote that is never closed would swallow the rest of the file: where that shows, only its line is left out and the
reading goes on behind it.
"""

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any, Literal, Self

from foundling.core.errors import UserError
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
from foundling.corpus.streams import Stream, decode, lines, recoded

SUFFIXES = (".csv", ".tsv")
Delimiter = Literal[",", "\t", ";", "|"]
_DELIMITERS: tuple[Delimiter, ...] = (",", "\t", ";", "|")
_HEADER_NAME = re.compile(r"[^\W\d][\w .()/-]{0,60}")
_NUMBER = re.compile(r"[-+]?[\d.,]*(?:[eE][-+]?\d+)?%?")
# Every unclosed quote costs a second reading of what it swallowed, so there is an end to that.
_MAX_RESTARTS = 200
_CHEAP_LINES = 16
"""Lines whose second reading costs nothing."""
_OPEN, _BROKEN = "opens a quote that is never closed", "has a line break in a field without quotes"


class Config(RowsConfig):
    """How the rows of one file are read."""

    delimiter: Delimiter | None = None
    """What stands between fields; None: tab in `.tsv`, else the one of `,`, tab, `;` and `|` that gives equal rows."""
    header: bool | None = None
    """Whether the first row names the fields; None: guessed. Without one they are `column_1`, `column_2`, ..."""

    def settle(self, stream: Stream, name: str) -> Self:
        encoding = settle_encoding(stream, self.encoding)
        if encoding is None:
            return self
        start = "".join(first_lines(recoded(stream, encoding)))
        is_tab = name.lower().removesuffix(".gz").endswith(".tsv")
        delimiter = self.delimiter or ("\t" if is_tab else guess_delimiter(start))
        rows = parsed(start, delimiter)
        header = has_header(rows, self.text_field) if self.header is None else self.header
        field = self.text_field
        if field is None:
            names, values = _names(rows[0], header) if rows else [], rows[1:] if header else rows
            guessed = guess_text_field([dict(zip(names, _texts(row), strict=False)) for row in values])
            field = guessed if rows else TEXT_FIELD
        return self.model_copy(
            update={"encoding": encoding, "delimiter": delimiter, "header": header, "text_field": field}
        )

    def build(self) -> "CsvReader":
        return CsvReader(self)


class CsvReader:
    def __init__(self, config: Config) -> None:
        self.config = config

    def read(self, stream: Stream) -> Iterator[Record | Problem]:
        pieces = text_pieces(stream, self.config.encoding)
        if isinstance(pieces, Problem):
            yield pieces
            return
        rows = Rows(pieces, self.config.delimiter or ",")
        names: list[str] | None = None
        for number, row in rows:
            if isinstance(row, Problem):
                yield row
                continue
            if names is None:
                if not row:
                    continue
                names = _names(row, self.config.header is not False)
                field = self.config.text_field
                if field not in names:
                    yield Problem("no_text_field", no_text_field(names) if field is None else _not_there(field, names))
                    return
                if self.config.header is not False:
                    continue
            if not row:
                continue
            if len(row) != len(names):
                detail = f"line {number} has {len(row)} fields where the header has {len(names)}"
                yield Problem("malformed_row", detail)
                continue
            meta: dict[str, Any] = dict(zip(names, row, strict=True))
            text = meta.pop(field or TEXT_FIELD)
            yield Record(text, f":{number}", meta)
        if rows.num_nuls:
            yield Problem("nul_bytes", f"{rows.num_nuls} NUL bytes are removed", rows.num_nuls)
        yield from encoding_problems(stream, rows.num_bad_bytes)


class Rows:
    """(number of its first line, row or what is wrong with it), for every row.

    quotes: whether they enclose fields; otherwise a quote is a character like others.
    """

    def __init__(self, pieces: Iterator[bytes], delimiter: str, *, quotes: bool = True) -> None:
        csv.field_size_limit(MAX_DOCUMENT_BYTES)
        self._lines = lines(pieces, MAX_DOCUMENT_BYTES)
        self._delimiter = delimiter
        self._quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
        self._taken: list[tuple[int, str]] = []  # lines of the row that is being read
        self._again: deque[tuple[int, str]] = deque()  # lines that are to be read a second time
        self._too_long: list[int] = []
        self.num_bad_bytes = 0
        self.num_nuls = 0
        self._torn_lines: set[int] = set()

    @property
    def torn_line(self) -> int | None:
        """Number of the first line of the row given last that has bytes that are not UTF-8, or NULs."""
        return next((number for number, _ in self._taken if number in self._torn_lines), None)

    def __iter__(self) -> Iterator[tuple[int, list[str] | Problem]]:
        num_restarts = 0
        while num_restarts < _MAX_RESTARTS:
            fault = yield from self._until_fault()
            if not self._taken:
                return
            (number, _), *rest = self._taken
            yield number, Problem("malformed_row", f"line {number} {fault}")
            num_restarts += len(rest) > _CHEAP_LINES
            self._again.extendleft(reversed(rest))
            self._taken.clear()
        left = self._source()  # what was to be read again, and what never was
        if (first := next(left, None)) is not None:
            count = 1 + sum(1 for _ in left)
            detail = f"from line {first[0]} on, {count} lines are left out: too many quotes are never closed"
            yield first[0], Problem("malformed_row", detail, count)

    def _until_fault(self) -> Generator[tuple[int, list[str] | Problem], None, str]:
        """Rows up to the end, or up to one that cannot be read or swallows too much: its lines are then in `_taken`,
        and what is wrong with it is returned."""
        reader = csv.reader(self._fed(), delimiter=self._delimiter, quoting=self._quoting, strict=True)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                row = self._row_with_stray_quotes()
                if row is None:
                    return _BROKEN if "new-line character" in str(error) else _OPEN
            yield from ((n, Problem("line_too_long", f"line {n} is too long")) for n in self._too_long)
            self._too_long.clear()
            if row is None:
                return _OPEN
            yield self._taken[0][0], row
            self._taken.clear()

    def _row_with_stray_quotes(self) -> list[str] | None:
        """One line, read as spreadsheets read quotes in odd places; None for a quote that runs over several."""
        if len(self._taken) != 1:
            return None
        try:
            loose = csv.reader([self._taken[0][1], "\n"], delimiter=self._delimiter)
            row = next(loose)
        except csv.Error:
            return None
        return row if loose.line_num == 1 else None

    def _fed(self) -> Iterator[str]:
        num_characters = 0
        for number, line in self._source():
            num_characters = len(line) if not self._taken else num_characters + len(line)
            self._taken.append((number, line))
            if num_characters > MAX_DOCUMENT_BYTES:
                raise csv.Error("the row is too long")
            yield line

    def _source(self) -> Iterator[tuple[int, str]]:
        while self._again:
            yield self._again.popleft()
        for number, line in self._lines:
            if line is None:
                self._too_long.append(number)
                continue
            text, bad = decode(line)
            self.num_bad_bytes += bad
            self.num_nuls += text.count("\0")
            if bad or "\0" in text:
                self._torn_lines.add(number)
            yield number, text.replace("\0", "") + "\n"


def first_lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """The lines that are looked at for a guess, with their ends."""
    num_bytes = 0
    for _, line in islice(lines(pieces, MAX_DOCUMENT_BYTES), NUM_ROWS_TO_GUESS):
        if line is not None:
            yield decode(line)[0].replace("\0", "") + "\n"
            num_bytes += len(line)
        if num_bytes > MAX_BYTES_TO_GUESS:
            return


def parsed(start: str, delimiter: str) -> list[list[str]]:
    """The rows of a file's beginning; the last one may be cut, and goes where there are others."""
    csv.field_size_limit(MAX_DOCUMENT_BYTES)
    try:
        rows = [row for row in csv.reader(io.StringIO(start, newline=""), delimiter=delimiter) if row]
    except csv.Error:
        return []
    return rows[:-1] if len(rows) > 2 else rows


def guess_delimiter(start: str) -> Delimiter:
    """The delimiter that gives the largest share of rows of one length, and of those the one with most fields."""
    best: tuple[float, int, Delimiter] = (0.0, 1, ",")
    for delimiter in _DELIMITERS:
        counts = Counter(len(row) for row in parsed(start, delimiter))
        if counts:
            num_fields, num_rows = counts.most_common(1)[0]
            score = (round(num_rows / counts.total(), 1), num_fields, delimiter)
            if num_fields > 1 and score[:2] > best[:2]:
                best = score
    return best[2]


def has_header(rows: list[list[str]], text_field: str | None) -> bool:
    """Whether the first row names the columns: unique words, one of them known, or none as long as what follows."""
    if not rows or text_field in rows[0]:
        return True
    names = rows[0]
    if len(names) == 1 and " " in names[0].strip():
        return False  # a sentence
    if len(set(names)) < len(names) or not all(_HEADER_NAME.fullmatch(name.strip()) for name in names):
        return False
    if len(rows) == 1 or (len(names) > 1 and guess_text_field([dict.fromkeys(names, "")]) is not None):
        return True
    columns = [[row[at] for row in rows[1:] if len(row) > at] for at in range(len(names))]
    if any(values and all(map(_NUMBER.fullmatch, values)) for values in columns):
        return True
    mean_lengths = [sum(map(len, values)) / max(1, len(values)) for values in columns]
    return max(mean_lengths) > 2 * len(names[mean_lengths.index(max(mean_lengths))])


def _names(row: list[str], header: bool) -> list[str]:
    return [name.strip() for name in row] if header else [f"column_{number}" for number in range(1, len(row) + 1)]


def _texts(row: list[str]) -> list[str | None]:
    """Numbers are no text."""
    return [None if _NUMBER.fullmatch(value.strip()) else value for value in row]


def _not_there(field: str, names: list[str]) -> str:
    return str(UserError(f"it must have the column {field!r}", got=", ".join(names[:12]), do="set text_field=KEY"))
