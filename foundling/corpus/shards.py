"""Parquet shards: written in bounded pieces, read in bounded pieces, the same bytes for the same rows."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DOCUMENTS = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "domain", "language", "split", "meta")])
"""Columns of `documents/*.parquet`; `meta` is a JSON object."""
DROPPED = pa.schema([(name, pa.string()) for name in ("id", "step", "reason", "detail", "sample")])
"""Columns of `dropped/*.parquet`; `detail` is the figure that decided, `sample` the document's beginning."""
PROBLEMS = pa.schema(
    [("file", pa.string()), ("kind", pa.string()), ("line", pa.int64()), ("detail", pa.string()), ("count", pa.int64())]
)
"""Columns of `problems/*.parquet`: everything that could not be used as it was, one by one."""

_ROW_GROUP_BYTES = 8 << 20  # read back whole, so it bounds a reader's memory
_SHARD_BYTES = 256 << 20  # of rows before compression
_ROW_BYTES = 32  # a row without text counts as this many
_REPEATED = {"source", "domain", "language", "split", "step", "reason", "file", "kind"}  # worth a dictionary


class ShardWriter:
    """Writes batches to `{stem}-00000.parquet`, ... and starts a new file after 256 MiB of rows.

    Where row groups and files end depends on the rows alone, not on the batches in which they come.
    """

    def __init__(self, folder: Path, stem: str, schema: pa.Schema) -> None:
        self._folder, self._stem, self._schema, self._next = folder, stem, schema, 0
        self._repeated = [name for name in schema.names if name in _REPEATED]
        self._strings = [field.name for field in schema if pa.types.is_string(field.type)]
        self._file: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = self._shard_bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        batch = batch.select(self._schema.names).cast(self._schema)
        sizes = np.full(batch.num_rows, _ROW_BYTES, np.int64)
        for name in self._strings:
            sizes += pc.fill_null(pc.binary_length(batch[name]), 0).to_numpy(zero_copy_only=False)
        ends, start = np.cumsum(sizes), 0
        while start < batch.num_rows:
            before = int(ends[start - 1]) if start else 0
            end = int(np.searchsorted(ends, before + _ROW_GROUP_BYTES - self._waiting_bytes)) + 1
            end = min(end, batch.num_rows)
            self._waiting.append(batch.slice(start, end - start))
            self._waiting_bytes += int(ends[end - 1]) - before
            start = end
            if self._waiting_bytes >= _ROW_GROUP_BYTES:
                self._flush()

    def close(self) -> None:
        self._flush()
        self._end_file()

    def _flush(self) -> None:
        if not self._waiting:
            return
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self._stem}-{self._next:05d}.parquet"
            self._file = pq.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=self._repeated)
            self._next += 1
        table = pa.Table.from_batches(self._waiting).combine_chunks()  # pages would end where batches end
        self._file.write_table(table, row_group_size=table.num_rows)
        self._shard_bytes += self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        if self._shard_bytes >= _SHARD_BYTES:
            self._end_file()

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._shard_bytes = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:  # what is half-written goes with its folder
            self._file.close()


def read_shards(folder: Path, stem: str, num_rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of at most `num_rows` rows of all shards of `stem`, in the order in which they were written."""
    for path in sorted(folder.glob(f"{stem}-*.parquet")):
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                yield from file.iter_batches(num_rows, row_groups=[group], columns=columns)


def dropped_rows(folder: Path, reason: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of `DROPPED` of a corpus folder, in order; those of one reason (`too_short` or `length.too_short`)."""
    for batch in read_shards(folder / "dropped", "dropped", 1024):
        for row in batch.to_pylist():
            if reason is None or reason in (row["reason"], f"{row['step']}.{row['reason']}"):
                yield row


def problem_rows(folder: Path, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of `PROBLEMS` of a corpus folder, in the order of the inputs; those of one kind (`malformed_line`)."""
    for batch in read_shards(folder / "problems", "problems", 1024):
        yield from (row for row in batch.to_pylist() if kind in (None, row["kind"]))
