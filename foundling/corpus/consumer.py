"""What must be done in order: the one place where a segment's batches pass one after the other.

Tells problems, asks the step that knows other documents, counts, and notes what was dropped.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.rows import READ, Columns, Place, sizes_of
from foundling.corpus.segment import is_step, shown, take
from foundling.corpus.shards import DROPPED, PROBLEMS, ShardWriter
from foundling.corpus.steps.base import CorpusStep, SurveyStep
from foundling.corpus.tally import SegmentTally
from foundling.corpus.work import Chunks

_TEXT_COLUMNS = ("id", "text", "source", "domain", "language", "meta")


class Consumer:
    """Goes once over the batches of `CLEANED` of one segment, in order.

    part: the segment's steps. folder: gets `dropped/` and `problems/`.
    """

    def __init__(self, tally: SegmentTally, part: Sequence[PartConfig], folder: Path) -> None:
        self._tally, self._folder = tally, folder
        self._admitting: CorpusStep | None = None
        self._surveying: SurveyStep | None = None
        if part and is_step(part[-1], CorpusStep):
            self._admitting = part[-1].build()
        elif part and is_step(part[-1], SurveyStep):
            self._surveying = part[-1].build()

    def read(self, chunks: Chunks, place: Place) -> Iterator[pa.RecordBatch]:
        """The rows that stay, as rows of `READ` for the next segment, from a place on; what comes before is counted.

        Batches end where those of the chunks end, but for rows that were dropped.
        """
        if self._surveying is not None:
            self._surveying.survey(_signatures(chunks))
        number = 0
        for batch in self._passed(chunks.read()):
            start, number = number, number + batch.num_rows
            if batch.num_rows and number > place.row:
                yield _as_read(batch.slice(max(0, place.row - start)), max(start, place.row))

    def kept(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows that stay, as they are. The segment must not end with a `SurveyStep`."""
        assert self._surveying is None
        return self._passed(batches)

    def _passed(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for name in ("dropped", "problems"):
            shutil.rmtree(self._folder / name, ignore_errors=True)  # of a start that came less far
        number = 0  # of documents that reached the last step
        with (
            ShardWriter(self._folder / "dropped", "dropped", DROPPED) as dropped,
            ShardWriter(self._folder / "problems", "problems", PROBLEMS) as problems,
        ):
            for batch in batches:
                for notes in batch["notes"].drop_null().to_pylist():
                    self._tally.merge(json.loads(notes))
                problems.write(self._problems(batch))
                drops = _drops(batch)
                if self._surveying is not None:
                    left, number = self._decide(self._surveying, batch, drops, number)
                elif self._admitting is not None:
                    left = self._admit(self._admitting, batch, drops)
                else:
                    left = batch.filter(batch["num_characters"].is_valid())
                dropped.write(_dropped_rows(batch, drops))
                yield left
        self._tally.problems.end()
        step: Any = self._admitting or self._surveying
        if hasattr(step, "summary"):
            self._tally.summary = self._tally.redactor.shown_in(step.summary())

    def _problems(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch["problem"].null_count < batch.num_rows:
            batch = batch.filter(batch["problem"].is_valid())
            columns = [batch[name] for name in ("id", "problem", "line", "detail", "count")]
            rows = pa.RecordBatch.from_arrays(columns, PROBLEMS.names)
            for file, kind, line, detail, count in zip(*(column.to_pylist() for column in columns), strict=True):
                self._tally.problems.add(file, kind, detail, line, count)
            return rows
        return pa.RecordBatch.from_pylist([], schema=PROBLEMS)

    def _admit(self, step: CorpusStep, batch: pa.RecordBatch, drops: "_Drops") -> pa.RecordBatch:
        kind, notes = self._tally.steps[-1]
        stays = batch["num_characters"].is_valid().to_pylist()
        ids, sizes = batch["id"].to_pylist(), sizes_of(batch)
        signatures = batch["signature"].to_pylist()
        for index in list(compress(range(batch.num_rows), stays)):
            drop = step.admit(signatures[index])
            if drop is None:
                notes.kept(sizes[index])
                continue
            stays[index] = False
            document = Document(ids[index], batch["text"][index].as_py(), "", "")
            drops[index] = (kind, *shown(drop, document, notes.redactor))
            notes.drop(drops[index][1], ids[index], drops[index][2])
        return batch.filter(pa.array(stays, pa.bool_()))

    def _decide(
        self, step: SurveyStep, batch: pa.RecordBatch, drops: "_Drops", number: int
    ) -> tuple[pa.RecordBatch, int]:
        """The rows that stay, as rows of `READ`, and the number of the next document."""
        kind, notes = self._tally.steps[-1]
        columns = Columns()
        stays = batch["num_characters"].is_valid()
        indices = list(compress(range(batch.num_rows), stays.to_pylist()))
        reached = batch.filter(stays)
        consumed = reached["consumed_bytes"].to_pylist()
        rows = zip(*(reached[name].to_pylist() for name in _TEXT_COLUMNS), strict=True)
        for index, row, size, passed in zip(indices, rows, sizes_of(reached), consumed, strict=True):
            id, text, source, domain, language, meta = row
            given: dict[str, Any] = {} if meta == "{}" else json.loads(meta)
            document = Document(id, text, source, domain, language, None, given)
            answer = step.decide(number, document)
            number += 1
            if isinstance(answer, Drop):
                drops[index] = (kind, *shown(answer, document, notes.redactor))
                notes.drop(drops[index][1], id, drops[index][2])
                continue
            if answer is document:
                notes.kept(size)
            else:
                document, size = take(notes, document, answer, size)
            if document.meta is not given:
                meta = json.dumps(document.meta, ensure_ascii=True)
            tags = (document.source, document.domain, document.language, meta)
            columns.add(document.id, document.text, *tags, None, None, None, None, passed, 0, 0, size.num_words)
        return columns.batch(), number


_Drops = dict[int, tuple[str, Drop, str]]
"""Row -> the step that dropped it, its answer and the beginning of the text, as they may be shown."""


def _drops(batch: pa.RecordBatch) -> _Drops:
    """What the segment's own steps dropped."""
    if batch["drop_step"].null_count == batch.num_rows:
        return {}
    dropped = batch["drop_step"].is_valid()
    rows = batch.filter(dropped)
    told = (rows[name].to_pylist() for name in ("drop_step", "drop_reason", "drop_detail", "text"))
    indices = compress(range(batch.num_rows), dropped.to_pylist())
    return {
        index: (kind, Drop(reason, detail), sample)
        for index, kind, reason, detail, sample in zip(indices, *told, strict=True)
    }


def _dropped_rows(batch: pa.RecordBatch, drops: _Drops) -> pa.RecordBatch:
    rows = []
    for index in sorted(drops):
        kind, drop, sample = drops[index]
        told = {"step": kind, "reason": drop.reason, "detail": drop.detail, "sample": sample}
        rows.append({"id": batch["id"][index].as_py(), **told})
    return pa.RecordBatch.from_pylist(rows, schema=DROPPED)


def _signatures(chunks: Chunks) -> Iterator[bytes]:
    """Of the documents that reached the segment's last step, in order."""
    for batch in chunks.read(["num_characters", "signature"]):
        yield from batch["signature"].filter(batch["num_characters"].is_valid()).to_pylist()


def _as_read(batch: pa.RecordBatch, number: int) -> pa.RecordBatch:
    """Rows as the next segment reads them. number: of the first row in the segment."""
    num_rows = batch.num_rows
    columns = {name: batch[name] for name in (*_TEXT_COLUMNS, "consumed_bytes", "num_words")}
    columns["file"] = pa.array(np.zeros(num_rows, np.int64))
    columns["row"] = pa.array(np.arange(number, number + num_rows))
    for name in ("problem", "detail", "line", "count"):
        columns[name] = pa.nulls(num_rows, READ.field(name).type)
    return pa.RecordBatch.from_arrays([columns[name] for name in READ.names], schema=READ)
