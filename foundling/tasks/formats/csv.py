"""Comma- or tab-separated values with a header row (RFC 4180)."""

import csv
import io
from collections.abc import Iterator
from itertools import islice
from typing import Literal

from foundling.core.errors import UserError
from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import FormatConfig, Row

SUFFIXES = (".csv", ".tsv")
_DELIMITERS: tuple[str, ...] = (",", "\t", ";", "|")


class Config(FormatConfig):
    kind: str = "csv"
    """Name of the part."""
    delimiter: Literal[",", "\t", ";", "|"] | None = None
    """What stands between fields; None: the one that the first line has most of."""
    columns: tuple[str, ...] = ()
    """Names of the columns, where the file has no header row."""

    def rows(self, stream: Stream) -> Iterator[Row]:
        text = self.text(stream)
        first = text.split("\n", 1)[0]
        delimiter: str = self.delimiter or max(_DELIMITERS, key=lambda d: first.count(d))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = list(self.columns)
        while True:
            where = str(reader.line_num + 1)
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise UserError(
                    f"{stream.path.name}, line {where}: quotes must be closed", got=str(error), do="mend the file"
                ) from error
            if row is None:
                return
            if not any(row):
                continue
            if not names:
                names = [name.strip() for name in row]
                if len(set(names)) < len(names):
                    raise UserError(
                        f"{stream.path.name} must begin with a row of column names",
                        got=", ".join(names[:6]),
                        do="name them: format={kind: csv, columns: [text, label]}",
                    )
                continue
            if len(row) != len(names):
                yield Row(where, None, f"it has {len(row)} fields, and there are {len(names)} columns")
            else:
                yield Row(where, dict(zip(names, row, strict=True)))


def looks_like(head: str) -> bool:
    """Whether the first rows have equally many fields, more than one, by some delimiter."""
    for delimiter in _DELIMITERS:
        try:
            rows = [row for row in islice(csv.reader(io.StringIO(head, newline=""), delimiter=delimiter), 5) if row]
        except csv.Error:
            continue
        if len(rows) > 1 and len({len(row) for row in rows[:-1]}) == 1 and len(rows[0]) > 1:
            return True
    return False
