"""Comma- or tab-separated values with a row of column names (RFC 4180, and what spreadsheets and others make of it)."""

import re
from collections.abc import Iterator, Sequence
from typing import Self

from foundling.core.errors import UserError
from foundling.corpus.encodings import settle_encoding
from foundling.corpus.inputs import suffix_of
from foundling.corpus.readers.base import Problem, TextConfig
from foundling.corpus.readers.csv import Delimiter, Rows, first_lines, guess_delimiter, has_header, parsed
from foundling.corpus.sniff import format_of
from foundling.corpus.streams import Stream, recoded
from foundling.tasks.fields import is_usual
from foundling.tasks.formats.base import MAYBE, NO, Fault, Row, lost, pieces_of

SUFFIXES = (".csv", ".tsv", ".tab")
_BYTES_TO_GUESS_QUOTES = 8 << 20
_SURE_NAMES = 2
"""So many usual names of fields in a row are no chance: a class may be called `question`, or `description`."""
_PLACE = re.compile(r"^line \d+ ")


class Config(TextConfig):
    """How the rows of one file are read."""

    delimiter: Delimiter | None = None
    """What stands between fields; None: tab in `.tsv`, else the one of `,`, tab, `;` and `|` that gives equal rows."""
    header: bool | None = None
    """Whether the first row names the columns; None: guessed, but not where `columns` names them."""
    columns: tuple[str, ...] = ()
    """Names of the columns, in their order: of a file without a header, or instead of those in it."""
    quotes: bool | None = None
    """Whether quotes enclose fields. None: they do, unless all lines are whole rows only where a quote is a character
    like others (as in many `.tsv` files of tasks)."""

    def settle(self, stream: Stream, name: str) -> Self:
        encoding = settle_encoding(stream, self.encoding)
        if encoding is None:
            return self
        beginning = stream.peek(_BYTES_TO_GUESS_QUOTES)[:_BYTES_TO_GUESS_QUOTES]
        start = "".join(first_lines(recoded(stream, encoding)))
        is_tab = suffix_of(name) in (".tsv", ".tab")
        delimiter = self.delimiter or ("\t" if is_tab else guess_delimiter(start))
        header = self.header
        if header is None and (rows := parsed(start, delimiter)):
            names = tuple(name.strip() for name in rows[0])
            is_header = sum(map(is_usual, names)) >= _SURE_NAMES or has_header(rows, None)
            header = names == self.columns if self.columns else is_header
        quotes = self.quotes
        if quotes is None:
            quotes = _are_quoted(beginning.decode(encoding, errors="replace"), delimiter)
        return self.model_copy(
            update={"encoding": encoding, "delimiter": delimiter, "header": header, "quotes": quotes}
        )

    def build(self) -> "Csv":
        return Csv(self)


class Csv:
    def __init__(self, config: Config) -> None:
        self.config = config

    def read(self, stream: Stream) -> Iterator[Row | Fault]:
        config = self.config
        rows = Rows(pieces_of(stream, config.encoding), config.delimiter or ",", quotes=config.quotes is not False)
        names: Sequence[str] = ()
        hollow: list[Fault] = []
        for number, row in rows:
            where = str(number)
            if isinstance(row, Problem):
                yield Fault(where, _PLACE.sub("it ", row.detail))
                continue
            if not row:
                continue
            if not any(row) and names:  # told where rows follow: spreadsheets end with such ones
                hollow.append(Fault(where, "all its fields are empty"))
                continue
            yield from hollow
            hollow.clear()
            if not any(row):
                continue
            if not names:
                names = self._names(row, f"{stream.path.name}, line {number}")
                if config.header is not False:
                    continue
            if rows.torn_line is not None:
                yield Fault(where, f"line {rows.torn_line} has bytes that are not UTF-8, or NULs")
            elif lost("".join(row), config.encoding):
                yield Fault(where, f"it holds what is not {config.encoding}")
            elif len(row) != len(names):
                yield Fault(where, f"it has {len(row)} fields, and there are {len(names)} columns")
            else:
                yield Row(where, dict(zip(names, row, strict=True)))

    def _names(self, row: list[str], what: str) -> Sequence[str]:
        """The names of the columns, by the settings and the first row. UserError: there are none, or not for each."""
        do = "name them: task.format={kind: csv, columns: [text, label]}"
        if self.config.columns:
            if len(self.config.columns) != len(row):
                raise UserError(
                    f"{what} must have the {len(self.config.columns)} columns that are named", got=len(row), do=do
                )
            return self.config.columns
        names = [name.strip() for name in row]
        shown = ", ".join(repr(name[:40]) for name in names[:6])
        if self.config.header is False:
            raise UserError(f"{what} must name the columns", got=f"the values {shown}", do=do)
        if len(set(names)) < len(names):
            raise UserError(f"{what} must name each column differently", got=shown, do=do)
        return names


def _are_quoted(text: str, delimiter: str) -> bool:
    """Whether quotes enclose fields, by a file's beginning: not where lines are whole rows without that, and not with
    it (`"Yes` is then a word that was written with its quote)."""
    if '"' not in text:
        return True
    lines = [line for line in text.split("\n")[:-1] if line.strip()]
    num_delimiters = {line.count(delimiter) for line in lines}
    if len(num_delimiters) != 1 or num_delimiters == {0}:
        return True
    rows = list(Rows(iter([f"{line}\n".encode() for line in lines]), delimiter))
    num_fields = num_delimiters.pop() + 1
    are_whole = all(not isinstance(row, Problem) and len(row) == num_fields for _, row in rows)
    return are_whole and len(rows) == len(lines)


def certainty(head: bytes, text: str) -> int:
    return MAYBE if text and format_of(head, None, is_suffix=False) == "csv" else NO
