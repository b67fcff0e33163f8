"""Steps as far as they need no other document, over one batch of rows: the work that runs in parallel.

Plain pyarrow: what runs these batches, where and in how many processes, is `engine`'s affair.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop, Size
from foundling.corpus.notes import SAMPLE_CHARACTERS, StepNotes
from foundling.corpus.redaction import Redactor
from foundling.corpus.rows import CLEANED, READ
from foundling.corpus.steps.base import CorpusStep, DocumentStep, SurveyStep
from foundling.corpus.word_counts import count_words


class Segment:
    """Steps up to and including the first that must know other documents, of which only the signature is taken.

    is_last: no segment follows, so the text is final and its hash is taken. redacting: the steps that say what may be
    shown in samples, of this segment or another.
    """

    def __init__(self, configs: Sequence[PartConfig], is_last: bool, redacting: Sequence[PartConfig] = ()) -> None:
        built = [(config.kind, config.build()) for config in configs]
        self._steps: list[tuple[str, DocumentStep]] = [(k, s) for k, s in built if isinstance(s, DocumentStep)]
        last = built[-1][1] if built else None
        self._signer = last if isinstance(last, CorpusStep | SurveyStep) else None
        self._is_last = is_last
        self._redactor = Redactor(redacting)

    def run(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of `READ` to as many rows of `CLEANED`. A dropped row keeps its text's beginning, as it may be shown."""
        rows = _Rows(batch)
        notes = [StepNotes(self._redactor) for _ in self._steps]
        for index, document in rows.documents():
            size = rows.sizes[index]
            for (kind, step), note in zip(self._steps, notes, strict=True):
                answer = step.apply(document)
                if answer is document:  # most documents at most steps
                    note.kept(size)
                    continue
                if isinstance(answer, Drop):
                    drop, sample = shown(answer, document, self._redactor)
                    note.drop(drop, document.id, sample)
                    rows.drop(index, kind, drop, sample)
                    break
                document, size = take(note, document, answer, size)
            else:
                rows.put(index, document, size.num_words, self._signer.signature(document) if self._signer else None)
        num_read = batch.num_rows - batch["text"].null_count
        read = [num_read, sum(size.num_bytes for size in rows.sizes), sum(size.num_words for size in rows.sizes)]
        told = {"read": read, "steps": [note.plain() for note in notes]}
        return rows.batch(json.dumps(told), self._is_last)


def take(note: StepNotes, document: Document, answer: Document, size: Size) -> tuple[Document, Size]:
    """Notes what a step made of a document of this size; the document that goes on, and its size."""
    if answer.found:
        note.find(answer.found)
        answer = replace(answer, found={})  # else the next step's unchanged answer would tell it again
    if answer.text != document.text:
        note.changed(document.id, document.text, answer.text)
        size = _size_of(answer.text)
    note.kept(size)
    return answer, size


def _size_of(text: str) -> Size:
    (num_words,) = count_words([text])
    return Size(len(text) if text.isascii() else len(text.encode()), num_words)


def shown(drop: Drop, document: Document, redactor: Redactor) -> tuple[Drop, str]:
    """A drop, and the beginning of the text that went, as they may be shown."""
    if drop.detail is not None:
        drop = Drop(drop.reason, redactor.shown(drop.detail))
    return drop, redactor.shown(document.text, 0, SAMPLE_CHARACTERS)


class _Rows:
    """A batch while the steps go over it: columns as lists, written back only where something changed."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._texts, self._metas, self._languages = (batch[n].to_pylist() for n in ("text", "meta", "language"))
        self._sources, self._domains = batch["source"].to_pylist(), batch["domain"].to_pylist()
        num_bytes = pc.fill_null(pc.binary_length(batch["text"]), 0).to_pylist()
        self._num_words: list[int] = (
            count_words([text or "" for text in self._texts])
            if batch["num_words"].null_count
            else batch["num_words"].to_pylist()
        )
        self.sizes = [Size(*pair) for pair in zip(num_bytes, self._num_words, strict=True)]
        self._changed: set[str] = set()
        self._columns: dict[str, list[Any]] = {
            name: [None] * batch.num_rows
            for name in ("drop_step", "drop_reason", "drop_detail", "num_characters", "signature")
        }
        self._given: dict[str, Any] = {}

    def documents(self) -> Any:
        """(row, document) of each row that is one."""
        ids = self._batch["id"].to_pylist()
        for index, text in enumerate(self._texts):
            if text is None:  # a problem
                continue
            meta = self._metas[index]
            self._given = {} if meta == "{}" else json.loads(meta)
            yield (
                index,
                Document(
                    ids[index],
                    text,
                    self._sources[index],
                    self._domains[index],
                    self._languages[index],
                    None,
                    self._given,
                ),
            )

    def drop(self, index: int, kind: str, drop: Drop, sample: str) -> None:
        columns = self._columns
        columns["drop_step"][index], columns["drop_reason"][index] = kind, drop.reason
        columns["drop_detail"][index] = drop.detail
        self._texts[index] = sample
        self._changed.add("text")

    def put(self, index: int, document: Document, num_words: int, signature: bytes | None) -> None:
        """The document as the steps left it. Only its text, tags and meta are looked at."""
        self._columns["num_characters"][index] = len(document.text)
        self._columns["signature"][index] = signature
        self._num_words[index] = num_words
        for name, values, value in (
            ("text", self._texts, document.text),
            ("source", self._sources, document.source),
            ("domain", self._domains, document.domain),
            ("language", self._languages, document.language),
        ):
            if values[index] is not value:
                values[index] = value
                self._changed.add(name)
        if document.meta is not self._given:
            self._metas[index] = json.dumps(document.meta, ensure_ascii=True) if document.meta else "{}"
            self._changed.add("meta")

    def batch(self, notes: str, hashed: bool) -> pa.RecordBatch:
        columns: dict[str, Any] = {name: self._batch[name] for name in READ.names}
        lists = {"text": self._texts, "source": self._sources, "domain": self._domains, "language": self._languages}
        for name, values in (lists | {"meta": self._metas}).items():
            if name in self._changed:
                columns[name] = pa.array(values, pa.large_string())
        columns["num_words"] = pa.array(self._num_words, pa.int64())
        num_rows = self._batch.num_rows
        columns |= {name: pa.array(values, CLEANED.field(name).type) for name, values in self._columns.items()}
        columns["content_hash"] = (
            hashes(columns["text"]) if hashed else pa.nulls(num_rows, CLEANED.field("content_hash").type)
        )
        columns["notes"] = pa.array([notes] + [None] * (num_rows - 1), pa.large_string())
        return pa.RecordBatch.from_arrays([columns[name] for name in CLEANED.names], schema=CLEANED)


def hashes(texts: pa.LargeStringArray) -> pa.Array:
    """sha256 of each text's UTF-8 bytes, taken from the column as it lies there."""
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1].tolist()
    data = memoryview(texts.buffers()[2] or b"")
    digests = [sha256(data[start:end]).digest() for start, end in pairwise(offsets)]
    return pa.array(digests, pa.large_binary())


def segments(configs: Sequence[PartConfig]) -> list[list[PartConfig]]:
    """The steps cut after each that must know other documents.

    After a `SurveyStep` there is always one more, empty perhaps: its second pass may change the text.
    """
    result: list[list[PartConfig]] = [[]]
    ends_with_survey = False
    for config in configs:
        result[-1].append(config)
        ends_with_survey = is_step(config, SurveyStep)
        if ends_with_survey or is_step(config, CorpusStep):
            result.append([])
    return result if result[-1] or len(result) == 1 or ends_with_survey else result[:-1]


def is_step(config: PartConfig, kind: type) -> bool:
    """Whether a config builds this kind of step; by what its `build` says that it gives, for some load much."""
    given = get_type_hints(type(config).build).get("return")
    return issubclass(given, kind) if isinstance(given, type) else isinstance(config.build(), kind)
