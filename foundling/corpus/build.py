"""Raw text to a corpus folder: read, cleaned by steps, split, counted.

What runs where: readers give rows in the order of the inputs; the steps run over batches of them in worker processes
(`engine`); one consumer, in order, decides what needs the whole corpus (duplicates), splits and writes. So the result
does not depend on the number of workers, and no more than a few dozen megabytes of text are in memory at a time.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import yaml
from pydantic import Field, field_validator

from foundling.core.config import Part, PartConfig, Strict, resolved
from foundling.core.errors import UserError
from foundling.core.files import (
    MANIFEST,
    artefact_key,
    hash_of,
    is_current,
    read_json,
    whole_folder,
    write_manifest,
    write_text,
)
from foundling.core.log import logger
from foundling.core.registry import nearest
from foundling.corpus.engine import run_segment
from foundling.corpus.folder import KIND, Corpus, open_corpus
from foundling.corpus.inputs import READERS, InputFile, find_inputs, hashes_of
from foundling.corpus.report import render
from foundling.corpus.rows import READ, SAMPLE_CHARACTERS, batched, read_rows, segments
from foundling.corpus.shards import DOCUMENTS, DROPPED, ShardWriter, read_shards
from foundling.corpus.split import Splitter, move
from foundling.corpus.steps.base import CorpusStep
from foundling.corpus.streams import Stream
from foundling.corpus.tally import Tally

STEPS = "corpus.steps"
Progress = Callable[[int, int, int], None]
"""Called with (bytes of the input files read so far, their total, documents kept so far)."""

_FORMAT_VERSION = 1  # raised when the same settings would give another folder
_FROM_FOLDER, _FROM_FILE = "from:folder", "from:file"
_SMALL_BYTES = 32 << 20  # below, starting worker processes costs more than they save


def preset(name: str) -> list[PartConfig]:
    """The steps of `plain` or `crawl`, as `presets.yaml` lists them. Raises ValueError for any other name."""
    known = yaml.safe_load(files("foundling.corpus").joinpath("presets.yaml").read_text(encoding="utf-8"))
    if name not in known:
        hint = nearest(name, list(known))
        asked = f"; did you mean {hint!r}?" if hint else ""
        raise ValueError(f"must be a list of steps or one of {', '.join(known)}{asked}")
    return [Part(STEPS).read(entry) for entry in known[name]]


class Config(Strict):
    """How raw text becomes a corpus."""

    text_field: str | None = None
    """Key of the text in JSON lines; None: `text`, else guessed from each file's first lines and told."""
    format: Annotated[PartConfig, Part(READERS)] | None = None
    """Reader for every file, `text` or `jsonl`; None: by suffix, and folders' files of other kinds are left out."""
    valid_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of the documents held out as `valid`, in [0, 1). Above 0, at least one of two documents is."""
    seed: int = 0
    """Decides, with a document's text alone, on which side of the split it stands."""
    steps: list[Annotated[PartConfig, Part(STEPS)]] = Field(default_factory=lambda: preset("crawl"))
    """What is done to the documents, in this order, each a part of `corpus.steps`; or a preset's name: `plain` for text
    that is clean already, `crawl` (the default) for text as it is found."""
    source: str | None = None
    """Source tag of all documents; None: the name of the folder or file that was given. `from:folder` takes the first
    folder below it (or its own name), `from:file` the file's name without suffixes."""
    domain: str | None = None
    """Domain tag of all documents, as `source`."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes for the steps; None: one a core, and none for little text. The result is the same for any number."""

    @field_validator("steps", mode="before")
    @classmethod
    def _of_preset(cls, value: Any) -> Any:
        return preset(value) if isinstance(value, str) else value

    @field_validator("source", "domain")
    @classmethod
    def _known_place(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("from:") and value not in (_FROM_FOLDER, _FROM_FILE):
            raise ValueError(f"a tag from the path must be {_FROM_FOLDER} or {_FROM_FILE}")
        return value


def build_corpus(
    sources: Sequence[Path | str],
    out: Path,
    config: Config,
    *,
    replace: bool = False,
    progress: Progress | None = None,
) -> Corpus:
    """The corpus folder `out`, made from files, folders (with all below) and globs; done already is done.

    replace: an existing corpus made from other inputs or settings gives way once the new one is whole. Any other
    folder is never touched. Raises UserError for inputs that cannot be used, and where no document is left.
    """
    out = Path(out)
    _check_place(out)
    found = find_inputs(sources, _reader(config), out)
    readers = {file.name: _settled(file, config) for file in found}
    tags = {file.name: (_tag(config.source, file), _tag(config.domain, file)) for file in found}
    workers = config.workers or _num_workers(sum(file.num_bytes for file in found))
    inputs = hashes_of(found, workers)
    settings = {
        **{key: value for key, value in resolved(config).items() if key != "workers"},
        "format_version": _FORMAT_VERSION,
        "files": hash_of([[file.name, *tags[file.name], resolved(readers[file.name])] for file in found]),
    }
    if is_current(out, KIND, artefact_key(KIND, settings, inputs)):
        logger.info("%s is up to date", out)
        return open_corpus(out)
    if (out / MANIFEST).exists() and not replace:
        raise UserError(
            f"{out} must not hold a corpus made from other inputs or settings",
            got="one that differs",
            do="choose another folder, or replace it (--replace)",
        )
    tally = Tally([step.kind for step in config.steps])
    with whole_folder(out) as folder:
        rows = read_rows(found, lambda file: tags[file.name], readers)
        _write_documents(rows, folder, config, tally, workers, _reporter(found, progress))
        counts = tally.counts()
        write_text(folder / "report.html", render(counts, settings, tally.samples))
        write_manifest(folder, KIND, settings=settings, inputs=inputs, counts=counts)
    return open_corpus(out)


def _check_place(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} must be a folder or not exist", got="a file", do="choose another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    manifest = read_json(out / MANIFEST) if (out / MANIFEST).exists() else None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise UserError(
            f"{out} must be empty, a corpus folder or not exist",
            got="a folder with other things, which stays as it is",
            do="choose another --out",
        )


def _reader(config: Config) -> PartConfig | None:
    if config.format is None or config.text_field is None or config.format.kind != "jsonl":
        return config.format
    return config.format.model_copy(update={"text_field": config.text_field})


def _settled(file: InputFile, config: Config) -> PartConfig:
    """The file's reader with everything fixed that depends on the file."""
    reader: Any = file.reader
    if config.text_field is not None and "text_field" in type(reader).model_fields:
        reader = reader.model_copy(update={"text_field": config.text_field})
    try:
        return reader.settle(Stream(file.path), file.name)
    except OSError:
        return reader  # the reading stage meets the same error, tells and counts it


def _tag(value: str | None, file: InputFile) -> str:
    if value is None:
        return file.source
    parts = file.name.split("/")
    if value == _FROM_FILE:
        return parts[-1].split(".")[0] or parts[-1]
    if value == _FROM_FOLDER:
        return parts[1] if len(parts) > 2 else parts[0] if len(parts) == 2 else file.source
    return value


def _num_workers(num_bytes: int) -> int:
    if num_bytes < _SMALL_BYTES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _reporter(files: Sequence[InputFile], progress: Progress | None) -> Callable[[int, int], None]:
    total, done = sum(file.num_bytes for file in files), 0

    def report(consumed_bytes: int, num_documents: int) -> None:
        nonlocal done
        done += consumed_bytes
        if progress is not None:
            progress(min(done, total), total, num_documents)

    return report


def _write_documents(
    rows: Iterator[dict[str, Any]],
    folder: Path,
    config: Config,
    tally: Tally,
    workers: int,
    report: Callable[[int, int], None],
) -> None:
    """Runs the steps, a segment after the other, and writes `documents/` and `dropped/`."""
    parts = segments(config.steps)
    splitter = Splitter(config.valid_fraction, config.seed)
    batches: Callable[[], Iterator[pa.RecordBatch]] = partial(batched, rows, READ)
    first_step = 0
    with ShardWriter(folder / "dropped", "dropped", DROPPED) as dropped:
        for number, part in enumerate(parts):
            consumer = _Consumer(tally, dropped, first_step, part, report)
            stage = folder / f"stage-{number}"
            with closing(run_segment(batches, part, workers)) as cleaned:
                kept = map(consumer.kept, cleaned)
                if number == len(parts) - 1:
                    _write_split(kept, folder / "documents", splitter, tally)
                else:
                    with ShardWriter(stage, "rows", READ) as writer:
                        for batch in kept:
                            writer.write(batch)
            batches = partial(read_shards, stage, "rows", 512)
            _remove_stage(folder / f"stage-{number - 1}")
            first_step += len(part)
    tally.tell_rest()
    if not tally.read["num_documents"]:
        examples = [example for entry in tally.problems.values() for example in entry["examples"]]
        raise UserError("a corpus needs at least one readable document", got="; ".join(examples[:3]) or "empty files")
    if not sum(splitter.num_documents.values()):
        raise UserError(
            "a corpus needs at least one document that all steps keep",
            got=f"{tally.read['num_documents']} read, none left: {'; '.join(tally.step_total())}",
            do="loosen the steps' settings",
        )
    if moving := splitter.to_move():
        content_hash, old, new = moving
        tally.moved(old, new, move(folder / "documents", content_hash, old, new))


def _write_split(batches: Iterator[pa.RecordBatch], documents: Path, splitter: Splitter, tally: Tally) -> None:
    with ShardWriter(documents, "train", DOCUMENTS) as train, ShardWriter(documents, "valid", DOCUMENTS) as valid:
        for batch in batches:
            splits = [splitter.split_of(content_hash) for content_hash in batch["content_hash"].to_pylist()]
            light = batch.select(["source", "domain", "language", "num_characters", "sizes"]).to_pylist()
            for row, split in zip(light, splits, strict=True):
                tally.kept(row, split, row["sizes"][-1])
            column = pa.array(splits, pa.string())
            tagged = batch.append_column("split", column)
            for name, writer in (("train", train), ("valid", valid)):
                writer.write(tagged.filter(pa.array([split == name for split in splits], pa.bool_())))


def _remove_stage(stage: Path) -> None:
    if stage.is_dir():
        for path in stage.iterdir():
            path.unlink()
        stage.rmdir()


class _Consumer:
    """Takes the batches of one segment in order: tells problems, asks the corpus step, counts, notes the dropped."""

    def __init__(
        self,
        tally: Tally,
        dropped: ShardWriter,
        first_step: int,
        part: Sequence[PartConfig],
        report: Callable[[int, int], None],
    ) -> None:
        self._tally, self._dropped, self._first, self._report = tally, dropped, first_step, report
        self._kinds = [config.kind for config in part]
        last: Any = part[-1].build() if part else None
        self._corpus_step: CorpusStep | None = last if isinstance(last, CorpusStep) else None
        self._num_kept = 0

    def kept(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch of `CLEANED` that stay."""
        columns = ["id", "problem", "detail", "count", "drop_step", "drop_reason", "drop_detail", "sizes", "signature"]
        stays, lost, consumed = [], [], 0
        for index, row in enumerate(batch.select([*columns, "consumed_bytes"]).to_pylist()):
            consumed += row["consumed_bytes"] or 0
            if row["problem"] is not None:
                self._tally.problem(row["id"], row["problem"], row["detail"], row["count"])
                stays.append(False)
                continue
            if self._first == 0:
                self._tally.document_read(row["sizes"][0])
            step, reason, detail = row["drop_step"], row["drop_reason"], row["drop_detail"]
            if step is None and self._corpus_step is not None:
                drop = self._corpus_step.admit(row["signature"])
                if drop is None:
                    row["sizes"].append(row["sizes"][-1])
                else:
                    step, reason, detail = self._kinds[-1], drop.reason, drop.detail
            self._tally.passed(self._first, row["sizes"])
            stays.append(step is None)
            if step is not None:
                sample = batch["text"][index].as_py()[:SAMPLE_CHARACTERS]
                at = self._first + len(row["sizes"]) - 1
                self._tally.dropped(step, at, reason, row["id"], sample)
                lost.append({"id": row["id"], "step": step, "reason": reason, "detail": detail, "sample": sample})
        self._dropped.write(pa.RecordBatch.from_pylist(lost, schema=DROPPED))
        self._num_kept += sum(stays)
        if self._first == 0:  # later segments read what the first one kept
            self._report(consumed, self._num_kept)
        return batch.filter(pa.array(stays, pa.bool_()))
