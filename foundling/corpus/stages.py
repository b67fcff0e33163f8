"""From read batches to a corpus folder: a segment after the other, and what must be done in order between them.

A segment's parallel work (`engine`) lands in chunks. A `Consumer` goes over the chunks in order, asks the step that
knows other documents, counts, notes what was dropped, and hands the rest on: to the next segment's workers, or to the
documents' shards. A build that is started again finds chunks, and figures of finished segments, in the work folder.
"""

import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.corpus.consumer import Consumer
from foundling.corpus.redaction import Redactor
from foundling.corpus.rows import START, Place, sizes_of
from foundling.corpus.segment import Segment, segments
from foundling.corpus.shards import DOCUMENTS, ShardWriter
from foundling.corpus.split import Splitter, move
from foundling.corpus.tally import KeptTally, SegmentTally, taken
from foundling.corpus.work import Chunks, Work

Read = Callable[[Place], Iterator[pa.RecordBatch]]
"""The rows of `READ` from a place on."""
_Batches = Generator[pa.RecordBatch, None, None]
Run = Callable[[Callable[[], Iterator[pa.RecordBatch]], Sequence[PartConfig], bool], _Batches]
"""`engine.run_segment`, its workers fixed."""
Report = Callable[[float, int], None]
"""Called with the share of the work that is done, in [0, 1], and the documents that this segment kept so far."""


def write_corpus(
    read: Read,
    steps: Sequence[PartConfig],
    splitter: Splitter,
    folder: Path,
    work: Work,
    run: Run,
    total_bytes: int,
    report: Report,
) -> tuple[list[SegmentTally], KeptTally]:
    """Runs the steps and writes `documents/`, `dropped/` and, where there are any, `problems/` into `folder`.

    total_bytes: of the input files, for the report. Raises UserError where no document could be read or is left.
    """
    parts, redactor = segments(steps), Redactor(steps)
    last = len(parts) - 1
    tallies = [SegmentTally([config.kind for config in part], redactor) for part in parts]
    states = [work.state(number) for number in range(len(parts))]
    num_finished = states.index(None)  # a segment is finished once the next one's chunks are whole; never the last
    for number in range(num_finished):
        tallies[number].restore(states[number])
    progress = _Progress(report, len(parts) * total_bytes)
    before: Chunks | None = None
    for number in range(num_finished, last):
        progress.start(number * total_bytes)
        chunks = Chunks(work.folder(number))
        if number == 0 or number > num_finished:
            fresh = run(partial(read, chunks.next_place), parts[number], False)
            with closing(chunks.kept(fresh)) as rows:
                num_kept = 0
                for batch in rows:
                    num_kept += batch.num_rows - batch["num_characters"].null_count
                    progress.add(batch, num_kept)
            if before is not None:
                work.finish(number - 1, tallies[number - 1].plain())
                before.remove()
        read, before = partial(Consumer(tallies[number], parts[number], work.folder(number)).read, chunks), chunks
    progress.start(last * total_bytes)
    chunks = Chunks(work.folder(last))
    if parts[last]:
        rows = chunks.kept(run(partial(read, chunks.next_place), parts[last], True))
    else:  # nothing to do in parallel: what follows a survey, or no steps at all
        rows = _hashed(read(START))
    with closing(rows):
        told = progress.through(rows, splitter)
        consumer = Consumer(tallies[last], parts[last], work.folder(last))
        kept = _write_documents(consumer.kept(told), folder / "documents", splitter)
    _check(tallies, splitter)
    if moving := splitter.to_move():
        content_hash, old, new = moving
        kept.moved(old, new, move(folder / "documents", content_hash, old, new))
    for name in ("dropped", "problems"):
        _gather([work.folder(number) / name for number in range(len(parts))], folder / name)
    report(1.0, sum(splitter.num_documents.values()))
    return tallies, kept


class _Progress:
    """Each segment counts as much as the others, inside it the input's bytes whose rows have passed."""

    def __init__(self, report: Report, total_bytes: int) -> None:
        self._report, self._total = report, max(1, total_bytes)
        self._num_bytes = 0

    def start(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes

    def add(self, batch: pa.RecordBatch, num_kept: int) -> None:
        self._num_bytes += pc.sum(batch["consumed_bytes"]).as_py() or 0
        self._report(min(1.0, self._num_bytes / self._total), num_kept)

    def through(self, batches: Iterator[pa.RecordBatch], splitter: Splitter) -> Iterator[pa.RecordBatch]:
        """The batches, each told once what became of it is written."""
        for batch in batches:
            yield batch
            self.add(batch, sum(splitter.num_documents.values()))


def _hashed(batches: Iterator[pa.RecordBatch]) -> _Batches:
    segment = Segment([], is_last=True)
    for batch in batches:
        yield segment.run(batch)


def _write_documents(batches: Iterator[pa.RecordBatch], documents: Path, splitter: Splitter) -> KeptTally:
    kept = KeptTally()
    with ShardWriter(documents, "train", DOCUMENTS) as train, ShardWriter(documents, "valid", DOCUMENTS) as valid:
        for batch in batches:
            splits = [splitter.split_of(content_hash) for content_hash in batch["content_hash"].to_pylist()]
            tags = zip(*(batch[name].to_pylist() for name in ("source", "domain", "language")), strict=True)
            for row in zip(tags, splits, sizes_of(batch), batch["num_characters"].to_pylist(), strict=True):
                kept.add(*row)
            tagged = batch.append_column("split", pa.array(splits, pa.string()))
            for name, writer in (("train", train), ("valid", valid)):
                writer.write(tagged.filter(pc.equal(tagged["split"], name)))
    return kept


def _check(tallies: Sequence[SegmentTally], splitter: Splitter) -> None:
    num_read = tallies[0].read["num_documents"]
    if not num_read:
        problems = tallies[0].problems.kinds.values()
        examples = [example for entry in problems for example in entry["examples"]]
        raise UserError("a corpus needs at least one readable document", got="; ".join(examples[:3]) or "empty files")
    if not sum(splitter.num_documents.values()):
        raise UserError(
            "a corpus needs at least one document that all steps keep",
            got=f"{num_read} read, none left: {'; '.join(taken(tallies))}",
            do="loosen the steps' settings",
        )


def _gather(folders: Sequence[Path], target: Path) -> None:
    """Copies the shards of all segments into one folder, numbered on; they stay where they are for another start."""
    shards = [path for folder in folders for path in sorted(folder.glob("*.parquet"))]
    if shards:
        target.mkdir()
    for number, path in enumerate(shards):
        shutil.copyfile(path, target / f"{target.name}-{number:05d}.parquet")
