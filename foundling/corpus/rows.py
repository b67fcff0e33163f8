"""The columns that travel from the readers through the steps to the writers, and the reading of files into them."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from foundling.core.config import PartConfig
from foundling.corpus.document import Size
from foundling.corpus.inputs import Inputs
from foundling.corpus.readers.base import Problem, Record
from foundling.corpus.streams import Stream
from foundling.corpus.tags import Tags

BATCH_BYTES = 2 << 20
"""Characters of text after which a batch is closed; it holds one document more at most, and at most BATCH_ROWS."""
BATCH_ROWS = 4096

_TEXT_COLUMNS = ("id", "text", "source", "domain", "language", "meta")
READ = pa.schema(
    [
        *((name, pa.large_string()) for name in _TEXT_COLUMNS),
        ("problem", pa.large_string()),  # set on rows that are no documents: a key of readers.base.PROBLEMS
        ("detail", pa.large_string()),
        ("line", pa.int64()),  # of the file, where the problem is one line's
        ("count", pa.int64()),
        ("consumed_bytes", pa.int64()),  # of the input files, since the row before
        ("file", pa.int64()),  # the row's place: number of the file, and number of the row in it
        ("row", pa.int64()),
        ("num_words", pa.int64()),  # of the text, where they are counted already: in all segments after the first
    ]
)
CLEANED = pa.schema(
    [
        *READ,
        ("drop_step", pa.large_string()),
        ("drop_reason", pa.large_string()),
        ("drop_detail", pa.large_string()),
        ("num_characters", pa.int64()),
        ("signature", pa.large_binary()),  # for the segment's CorpusStep or SurveyStep
        ("content_hash", pa.large_binary()),  # sha256 of the text, in the last segment
        ("notes", pa.large_string()),  # on the first row of a batch: what the steps did to the batch, as JSON
    ]
)
_LINE = re.compile(r"line (\d+)\b")


class Place(NamedTuple):
    """Where a row stands: in which file (0 after the first segment), and the how many-eth there."""

    file: int
    row: int


START = Place(0, 0)


class Columns:
    """Rows of `READ` as they are collected: a list a column, which is several times as fast as a dict a row."""

    def __init__(self) -> None:
        self._lists: dict[str, list[Any]] = {name: [] for name in READ.names}
        self._appends = [values.append for values in self._lists.values()]
        self.num_rows = self.num_characters = 0

    def add(self, *values: Any) -> None:
        """One row: a value for each column of `READ`."""
        for append, value in zip(self._appends, values, strict=True):
            append(value)
        self.num_rows += 1
        self.num_characters += len(values[1] or "")

    @property
    def is_full(self) -> bool:
        return self.num_characters >= BATCH_BYTES or self.num_rows >= BATCH_ROWS

    def batch(self) -> pa.RecordBatch:
        arrays = [pa.array(values, field.type) for values, field in zip(self._lists.values(), READ, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=READ)


def sizes_of(batch: pa.RecordBatch) -> list[Size]:
    """Of each row's text, in rows of `CLEANED`."""
    num_bytes = pc.binary_length(batch["text"]).to_pylist()
    return [Size(*pair) for pair in zip(num_bytes, batch["num_words"].to_pylist(), strict=True)]


def read_batches(
    files: Inputs,
    tags: Tags,
    readers: dict[str, PartConfig],
    start: Place = START,
) -> Iterator[pa.RecordBatch]:
    """Every document and every problem of the files, in order, as batches of `READ`.

    tags: give the source and domain of a document. readers: file name -> its settled reader config. start: the first
    row that is wanted; files before its file are not opened.
    """
    columns = Columns()
    for number, file in enumerate(files[start.file :], start.file):
        source, domain = tags.of(file, {})
        stream, consumed = Stream(file.path), 0
        wanted = start.row if number == start.file else 0
        items = ((file.name, item) for item in _items(stream, readers[file.name]))
        for row, (name, item) in enumerate(chain(files.problems, items) if number == 0 else items):
            progress, consumed = stream.consumed_bytes - consumed, stream.consumed_bytes
            if row < wanted:
                continue
            if isinstance(item, Problem):
                found = _LINE.match(item.detail)
                line = int(found[1]) if found else None
                what = (item.kind, item.detail, line, item.count)
                columns.add(name, None, source, domain, None, None, *what, progress, number, row, None)
            else:
                meta = json.dumps(item.meta, ensure_ascii=True) if item.meta else "{}"
                id = name + item.suffix
                if tags.by_field:
                    source, domain = tags.of(file, item.meta)
                text = (id, item.text, source, domain, None, meta)
                columns.add(*text, None, None, None, None, progress, number, row, None)
            if columns.is_full:
                yield columns.batch()
                columns = Columns()
    if columns.num_rows:
        yield columns.batch()


def _items(stream: Stream, reader: PartConfig) -> Iterator[Record | Problem]:
    try:
        yield from reader.build().read(stream)
    except OSError as error:
        yield Problem("unreadable", f"it could not be read: {error.strerror or error}")
    if stream.damage:
        yield Problem("damaged_archive", f"the archive is damaged ({stream.damage}); what can be read is used")
