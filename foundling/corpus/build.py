"""Raw text to a corpus folder: read, cleaned by steps, split, counted.

What runs where: readers give rows in the order of the inputs; the steps run over batches of them in worker processes
(`engine`); one consumer, in order, asks the steps that know the whole corpus (duplicates), counts and writes
(`stages`). So the result does not depend on the number of workers, no more than a few dozen megabytes of text are in
memory at a time, and a build that is killed goes on when it is started again (`work`).
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

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
from foundling.core.units import Share
from foundling.corpus.encodings import NamedEncoding
from foundling.corpus.engine import run_on_ray, run_segment
from foundling.corpus.folder import KIND, Corpus, open_corpus
from foundling.corpus.inputs import READERS, find_inputs, hashes_of, settle
from foundling.corpus.report import render
from foundling.corpus.rows import read_batches
from foundling.corpus.split import Splitter
from foundling.corpus.stages import write_corpus
from foundling.corpus.tags import Tags, checked_tag
from foundling.corpus.tally import counts
from foundling.corpus.work import code_identity, open_work, sweep

STEPS = "corpus.steps"
Progress = Callable[[int, int, int], None]
"""Called with (bytes of the input files read so far, their total, documents kept so far)."""

_FORMAT_VERSION = 4  # raised when the same settings would give another folder
_NOT_OF_THE_RESULT = {"workers", "engine"}
_SMALL_BYTES = 8 << 20  # below, starting worker processes (a second) costs more than they save


def _presets() -> dict[str, list[Any]]:
    known: dict[str, list[Any]] = yaml.safe_load(
        files("foundling.corpus").joinpath("presets.yaml").read_text(encoding="utf-8")
    )
    return known


def preset(name: str) -> list[PartConfig]:
    """The steps of `plain` or `crawl`, as `presets.yaml` lists them. Raises ValueError for any other name."""
    known = _presets()
    if name not in known:
        hint = nearest(name, list(known))
        asked = f"; did you mean {hint!r}?" if hint else ""
        raise ValueError(f"must be a list of steps or one of {', '.join(known)}{asked}")
    return [Part(STEPS).read(entry) for entry in known[name]]


class Config(Strict):
    """How raw text becomes a corpus."""

    text_field: str | None = None
    """Name of the field that holds the text in JSON lines, JSON, CSV and Parquet; None: `text`, else guessed from each
    file's first rows and told."""
    format: Annotated[PartConfig, Part(READERS)] | None = None
    """Reader for every file (`text`, `jsonl`, `json`, `csv`, `parquet`, `html`, `warc`); None: by suffix, and by
    content where there is none. Folders' files of other kinds are left out."""
    encoding: NamedEncoding | None = None
    """Encoding of every file of text (`gb18030`, `big5`, `cp1252`, ...); None: UTF-8, else guessed and told."""
    valid_fraction: Annotated[Share, Field(ge=0, lt=1)] = 0.01
    """Share of the documents held out as `valid`, in [0, 1). Above 0, at least one of two documents is."""
    seed: int = 0
    """Decides, with a document's text alone, on which side of the split it stands."""
    steps: list[Annotated[PartConfig, Part(STEPS)]] = Field(default_factory=lambda: preset("crawl"))
    """What is done to the documents, in this order, each a part of `corpus.steps`; or a preset's name: `plain` for text
    that is clean already, `crawl` (the default) for text as it is found."""
    source: str | None = None
    """Source tag of the documents; None: the name of the folder or file that was given. `from:folder` takes the first
    folder below it (or its own name), `from:file` the file's name without suffixes, `from:{parent}-{1}` parts of the
    path, `re:EXPRESSION` its first group in the path, `field:NAME` a field of the document (`corpus.tags`)."""
    domain: str | None = None
    """Domain tag of all documents, as `source`."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes for the steps; None: one a core, and none for little text. The result is the same for any number."""
    engine: Literal["local", "ray"] = "local"
    """Where the steps run: on this machine, or on the Ray cluster that it belongs to (`pip install foundling[ray]`),
    whose nodes must have foundling too. The result is the same."""

    @field_validator("steps", mode="before")
    @classmethod
    def _of_preset(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return preset(value) if isinstance(value, str) else value
        known = _presets()  # a preset may stand among steps: [crawl, {kind: decontaminate, ...}]
        return [
            step for item in value for step in (preset(item) if isinstance(item, str) and item in known else [item])
        ]

    @field_validator("source", "domain", mode="before")
    @classmethod
    def _known_place(cls, value: Any) -> Any:
        return checked_tag(value)


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
    found = find_inputs(sources, config.format, out)
    readers = settle(found, text_field=config.text_field, encoding=config.encoding)
    total_bytes = sum(file.num_bytes for file in found)
    workers = config.workers or _num_workers(total_bytes)
    inputs = hashes_of(found, workers) | _input_hashes(config.steps)
    settings = {
        **{key: value for key, value in resolved(config).items() if key not in _NOT_OF_THE_RESULT},
        "format_version": _FORMAT_VERSION,
        "files": hash_of([[file.name, file.source, resolved(readers[file.name])] for file in found]),
    }
    if is_current(out, KIND, artefact_key(KIND, settings, inputs)):
        sweep(out)
        logger.info("%s is up to date", out)
        return open_corpus(out)
    if (out / MANIFEST).exists() and not replace:
        raise UserError(
            f"{out} must not hold a corpus made from other inputs or settings",
            got="one that differs",
            do="choose another folder, or replace it (--replace)",
        )
    tags = Tags(config.source, config.domain)
    on_ray = config.engine == "ray"
    told = [[name, problem.kind, problem.detail] for name, problem in found.problems]  # they count as rows
    identity = [artefact_key(KIND, settings, inputs), told, code_identity(Path(__file__).parent)]
    with open_work(out, identity) as work, whole_folder(out) as folder:
        tallies, kept = write_corpus(
            lambda place: read_batches(found, tags, readers, place),
            config.steps,
            Splitter(config.valid_fraction, config.seed),
            folder,
            work,
            partial(run_on_ray, workers=config.workers, redacting=config.steps)
            if on_ray
            else partial(run_segment, workers=workers, redacting=config.steps),
            total_bytes,
            lambda share, num: progress(round(share * total_bytes), total_bytes, num) if progress else None,
        )
        figures = counts(tallies, kept)
        write_text(folder / "report.html", render(figures, settings))
        write_manifest(folder, KIND, settings=settings, inputs=inputs, counts=figures)
    corpus = open_corpus(out)
    if config.valid_fraction and corpus.num_documents("train") and not corpus.num_documents("valid"):
        logger.warning("valid_fraction holds nothing back: all documents are one text; cut it into several documents")
    return corpus


def _input_hashes(steps: Sequence[PartConfig]) -> dict[str, str]:
    """Of the files that steps read themselves."""
    hashes: dict[str, str] = {}
    for number, step in enumerate(steps):
        if hasattr(step, "input_hashes"):
            hashes |= {f"steps.{number}.{step.kind}: {name}": value for name, value in step.input_hashes().items()}
    return hashes


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


def _num_workers(num_bytes: int) -> int:
    if num_bytes < _SMALL_BYTES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
