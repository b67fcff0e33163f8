"""The columns that travel from the readers through the steps to the writers, and the work on one batch of them.

Plain pyarrow: what runs these batches, where and in how many processes, is `engine`'s affair.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.inputs import InputFile
from foundling.corpus.readers.base import Problem, Record
from foundling.corpus.steps.base import CorpusStep
from foundling.corpus.streams import Stream

BATCH_BYTES = 4 << 20
"""Text bytes after which a batch is closed; a batch holds one document more at most, and at most BATCH_ROWS."""
BATCH_ROWS = 4096
SAMPLE_CHARACTERS = 240
"""How much of a dropped document is kept for people to look at."""

_TAGS = [("id", pa.large_string()), ("text", pa.large_string())] + [
    (name, pa.large_string()) for name in ("source", "domain", "language", "meta")
]
READ = pa.schema(
    [
        *_TAGS,
        ("problem", pa.large_string()),  # set on rows that are no documents: a key of readers.base.PROBLEMS
        ("detail", pa.large_string()),
        ("count", pa.int64()),
        ("consumed_bytes", pa.int64()),  # of the input files, since the row before
    ]
)
CLEANED = pa.schema(
    [
        *READ,
        ("drop_step", pa.large_string()),
        ("drop_reason", pa.large_string()),
        ("drop_detail", pa.large_string()),
        ("sizes", pa.large_list(pa.int64())),  # UTF-8 bytes before the first step and after each that kept it
        ("num_characters", pa.int64()),
        ("signature", pa.large_binary()),  # for the segment's CorpusStep
        ("content_hash", pa.large_binary()),  # sha256 of the text
    ]
)


def batched(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows as batches of bounded size."""
    kept: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        kept.append(row)
        size += len(row["text"] or "")
        if size >= BATCH_BYTES or len(kept) >= BATCH_ROWS:
            yield pa.RecordBatch.from_pylist(kept, schema=schema)
            kept, size = [], 0
    if kept:
        yield pa.RecordBatch.from_pylist(kept, schema=schema)


def read_rows(
    files: Iterable[InputFile], tags: Callable[[InputFile], tuple[str, str]], readers: dict[str, PartConfig]
) -> Iterator[dict[str, Any]]:
    """Every document and every problem of the files, in order, as rows of `READ`.

    tags: source and domain of a file's documents. readers: file name -> its settled reader config.
    """
    for file in files:
        source, domain = tags(file)
        stream, consumed = Stream(file.path), 0
        empty = dict.fromkeys(READ.names)
        for item in _items(file, stream, readers[file.name]):
            progress, consumed = stream.consumed_bytes - consumed, stream.consumed_bytes
            if isinstance(item, Problem):
                row = {"id": file.name, "problem": item.kind, "detail": item.detail, "count": item.count}
            else:
                meta = json.dumps(item.meta, ensure_ascii=True) if item.meta else "{}"
                row = {"id": file.name + item.suffix, "text": item.text, "meta": meta}
            yield {**empty, **row, "source": source, "domain": domain, "consumed_bytes": progress}


def _items(file: InputFile, stream: Stream, reader: PartConfig) -> Iterator[Record | Problem]:
    try:
        yield from reader.build().read(stream)
    except OSError as error:
        yield Problem("unreadable", f"it could not be read: {error.strerror or error}")
    if stream.damage:
        yield Problem("damaged_archive", f"the archive is damaged ({stream.damage}); what came before is used")


class Segment:
    """Steps up to and including the first `CorpusStep`, run over batches of `READ`; gives batches of `CLEANED`."""

    def __init__(self, configs: Sequence[PartConfig]) -> None:
        self._steps = [(config.kind, config.build()) for config in configs]

    def run(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist([self._row(row) for row in batch.to_pylist()], schema=CLEANED)

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["problem"] is not None:
            return row
        document = Document(
            id=row["id"],
            text=row["text"],
            source=row["source"],
            domain=row["domain"],
            language=row["language"],
            meta={} if row["meta"] == "{}" else json.loads(row["meta"]),
        )
        meta, data = document.meta, document.text.encode()
        sizes = [len(data)]
        for kind, step in self._steps:
            if isinstance(step, CorpusStep):
                row["signature"] = step.signature(document)
                break
            answer = step.apply(document)
            if isinstance(answer, Drop):
                sample = document.text[:SAMPLE_CHARACTERS]
                drop = {"drop_step": kind, "drop_reason": answer.reason, "drop_detail": answer.detail}
                return {**row, **drop, "text": sample, "sizes": sizes}
            if answer.text is not document.text:
                data = answer.text.encode()
            document = answer
            sizes.append(len(data))
        row.update(text=document.text, source=document.source, domain=document.domain, language=document.language)
        if document.meta is not meta:
            row["meta"] = json.dumps(document.meta, ensure_ascii=True)
        row.update(sizes=sizes, num_characters=len(document.text), content_hash=sha256(data).digest())
        return row


def segments(configs: Sequence[PartConfig]) -> list[list[PartConfig]]:
    """The steps cut after each `CorpusStep`: inside a list, only the last step needs to know other documents."""
    result: list[list[PartConfig]] = [[]]
    for config in configs:
        result[-1].append(config)
        if isinstance(config.build(), CorpusStep):
            result.append([])
    return result if result[-1] or len(result) == 1 else result[:-1]
