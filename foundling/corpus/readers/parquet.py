"""Parquet: a row is a document; its other columns become `meta`, but for columns of bytes."""

from collections.abc import Iterator
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.corpus.readers._fields import NUM_ROWS_TO_GUESS, guess_text_field, no_text_field, plain
from foundling.corpus.readers.base import MAX_DOCUMENT_BYTES, Problem, Record
from foundling.corpus.streams import Stream, decode

SUFFIXES = (".parquet", ".pq")
# Rows are taken so many at a time that they are about this large; the widest page of a row group is in memory as well.
_BATCH_BYTES, _MOST_ROWS = 8 << 20, 4096
_BUFFER_BYTES = 1 << 20
_ERRORS = (pa.ArrowException, OSError, EOFError)


class Config(PartConfig):
    """How the rows of one file are read."""

    text_field: str | None = None
    """Column that holds the text; None: `text`, else guessed from the names and the first values, told."""

    def settle(self, stream: Stream, name: str) -> Self:
        if self.text_field is not None:
            return self
        try:
            with stream.seekable() as source:
                return self.model_copy(update={"text_field": _guess(_open(source))})
        except pa.ArrowException:
            return self  # the reading meets the same error and tells it

    def build(self) -> "ParquetReader":
        return ParquetReader(self.text_field)


class ParquetReader:
    """text_field: None where none could be guessed: then the file is a problem as a whole."""

    def __init__(self, text_field: str | None) -> None:
        self.text_field = text_field

    def read(self, stream: Stream) -> Iterator[Record | Problem]:
        with stream.seekable() as source:
            file = open_parquet(source)
            if isinstance(file, Problem):
                yield file
                return
            names = file.schema_arrow.names
            if self.text_field is None:
                yield Problem("no_text_field", no_text_field(names))
                return
            if self.text_field not in names:
                must = f"it must have the column {self.text_field!r}"
                fault = UserError(must, got=", ".join(names[:12]), do="set text_field=KEY")
                yield Problem("no_text_field", str(fault))
                return
            is_packed = stream.consumed_bytes > 0  # then all of it was read before the first row
            num_bytes = 0 if is_packed else source.seek(0, 2)
            for number, row in parquet_rows(file, self.text_field):
                if isinstance(row, Problem):
                    yield row
                    continue
                if num_bytes:
                    stream.consumed_bytes = num_bytes * number // file.metadata.num_rows
                yield _item(number, row, self.text_field)


def open_parquet(source: Any) -> pq.ParquetFile | Problem:
    """source: the bytes as a file in which one can seek."""
    try:
        return _open(source)
    except _ERRORS as error:
        return Problem("damaged_file", f"it is no whole Parquet file: {_first_line(error)}")


def parquet_rows(file: pq.ParquetFile, text_field: str | None = None) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    """(number from 1, row), or (number, why the rows from it on could not be read), without columns of bytes.

    text_field: a column that stays even if it is one of bytes.
    """
    columns = [column.name for column in file.schema_arrow if column.name == text_field or _is_plain(column.type)]
    number = 0
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        end = number + metadata.num_rows
        try:
            rows = file.iter_batches(_num_rows(metadata), row_groups=[group], columns=columns)
            for batch in rows:
                for row in _rows_of(batch):
                    number += 1
                    yield number, row
        except _ERRORS as error:
            detail = f"rows {number + 1} to {end} could not be read: {_first_line(error)}"
            yield number + 1, Problem("damaged_file", detail)
        number = end


def _rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch. Cells that Python cannot hold (a time in nanoseconds, a date beyond the year 9999, a string
    that is not UTF-8) come as text, or as None."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows
    except (ValueError, OverflowError, KeyError):
        cells = zip(*map(_cells, batch.columns), strict=True)
        return [dict(zip(batch.schema.names, row, strict=True)) for row in cells]


def _cells(column: pa.Array) -> list[Any]:
    try:
        cells: list[Any] = column.to_pylist()
        return cells
    except (ValueError, OverflowError, KeyError):
        pass
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        data = column.cast(pa.large_binary()).to_pylist()
        return [None if cell is None else decode(cell)[0] for cell in data]
    try:
        texts: list[Any] = column.cast(pa.string()).to_pylist()
        return texts
    except (ValueError, pa.ArrowException):
        return [None] * len(column)


def _item(number: int, row: dict[str, Any], field: str) -> Record | Problem:
    text = row.pop(field)
    if isinstance(text, bytes):
        text = decode(text)[0]
    if not isinstance(text, str):
        return Problem("no_text", f"row {number} has no text in {field!r}")
    if len(text) > MAX_DOCUMENT_BYTES:
        return Problem("line_too_long", f"row {number} is longer than {MAX_DOCUMENT_BYTES} bytes")
    return Record(text, f":{number}", plain(row))


def _open(source: Any) -> pq.ParquetFile:
    return pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def _guess(file: pq.ParquetFile) -> str | None:
    names = [field.name for field in file.schema_arrow if _is_text(field.type)]
    if not names:
        return None
    for group in range(file.num_row_groups):
        try:
            first = next(file.iter_batches(NUM_ROWS_TO_GUESS, row_groups=[group], columns=names), None)
        except _ERRORS:
            continue  # the reading meets the same error and tells it
        if first is not None and first.num_rows:
            return guess_text_field(_rows_of(first))
    return guess_text_field([dict.fromkeys(names, "")])


def _num_rows(group: Any) -> int:
    row_bytes = group.total_byte_size / max(1, group.num_rows)
    return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / max(1.0, row_bytes))))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_plain(kind: pa.DataType) -> bool:
    return not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
