"""Files of examples: found, their format guessed and told, every row that makes no example named."""

import glob
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.core.registry import load_part, part_names
from foundling.corpus.streams import COMPRESSIONS, Stream
from foundling.tasks.formats.base import FOLDER, FormatConfig, Row

T = TypeVar("T")

_GUESSED = ("squad", "json", "jsonl", "parquet", "conll", "csv")
"""Formats in the order in which content is asked for: the first that it looks like."""
_SHOWN = 5
"""Faulty rows that are shown; the others are counted."""


class RowFault(Exception):
    """What is wrong with one row, in words that go on from `it`: raised by what makes examples, told with its place."""


@dataclass(frozen=True)
class Record:
    place: str
    """`train.jsonl:17`, for people."""
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Records:
    """The rows of a file."""

    path: Path
    records: list[Record]
    faults: list[tuple[str, str]]
    """(place, reason) of rows that are none."""

    def must_be_whole(self) -> None:
        """UserError where a row is faulty."""
        if self.faults:
            raise _refused(self.path, self.faults, len(self.faults) + len(self.records), "mend them")


def files_of(pattern: str) -> list[Path]:
    """The files that a path names: a file, all of a folder, or a glob's, in order. UserError: none."""
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    else:
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
    if not found:
        raise UserError("there must be a file of examples", got=f"none at {pattern}")
    return found


def read_records(pattern: str, wanted: PartConfig | None = None) -> Records:
    """The rows of all files that `pattern` names. wanted: how they are read; None: guessed for each, and told."""
    records: list[Record] = []
    faults: list[tuple[str, str]] = []
    paths = files_of(pattern)
    for path in paths:
        before = len(records) + len(faults)
        config = wanted or _guess(path)
        for row in _rows(path, config):
            place = f"{path.name}:{row.where}"
            if row.data is None:
                faults.append((place, row.fault))
            else:
                records.append(Record(place, row.data))
        logger.info("%s: %s rows (%s)", path, f"{len(records) + len(faults) - before:,}", config.kind)
    return Records(paths[0], records, faults)


def _rows(path: Path, config: PartConfig) -> Iterator[Row]:
    assert isinstance(config, FormatConfig)
    try:
        yield from config.rows(Stream(path))
    except OSError as error:
        raise UserError(f"{path} must be a file that can be read", got=error.strerror or str(error)) from error


def _guess(path: Path) -> PartConfig:
    """The format by the file's suffix, or by its content where that does not tell (.json may be SQuAD's)."""
    name = path.name.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    formats = {kind: load_part(FOLDER, kind) for kind in part_names(FOLDER)}
    by_suffix = next((kind for kind, part in formats.items() if name.endswith(tuple(part.SUFFIXES))), None)
    if by_suffix in (None, "json"):
        try:
            head = Stream(path).head.decode("utf-8", "replace")
        except OSError as error:
            raise UserError(f"{path} must be a file that can be read", got=error.strerror or str(error)) from error
        candidates = ("squad", "json", "jsonl") if by_suffix else _GUESSED
        by_suffix = next((kind for kind in candidates if formats[kind].looks_like(head)), by_suffix)
    if by_suffix is None:
        raise UserError(
            f"the format of {path} must be one of {', '.join(formats)}",
            got="a file that looks like none",
            do="say which: task.format=jsonl",
        )
    config: PartConfig = formats[by_suffix].Config(kind=by_suffix)
    return config


def examples_of(
    records: Records, make: Callable[[Mapping[str, Any]], T], on_bad: Literal["error", "skip"] = "error"
) -> list[T]:
    """An example of each record. make: raises `RowFault` for one that makes none.

    on_bad: `error`: a UserError that shows the first faulty rows and counts all; `skip`: they are told and left out.
    """
    found, faults = [], list(records.faults)
    for record in records.records:
        try:
            found.append(make(record.data))
        except RowFault as fault:
            faults.append((record.place, str(fault)))
    if faults and on_bad == "error":
        out = "mend them, or leave them out: task.bad_rows=skip"
        raise _refused(records.path, faults, len(found) + len(faults), out)
    if faults:
        shown = "; ".join(f"{place}: {reason}" for place, reason in faults[:_SHOWN])
        logger.warning("%s: %d rows are left out: %s%s", records.path, len(faults), shown, _more(faults))
    return found


def _refused(path: Path, faults: list[tuple[str, str]], num_rows: int, way_out: str) -> UserError:
    shown = "".join(f"\n  {place}: {reason}" for place, reason in faults[:_SHOWN])
    return UserError(f"{path}: {len(faults)} of {num_rows} rows make no example ({way_out}){shown}{_more(faults)}")


def _more(faults: list[tuple[str, str]]) -> str:
    return f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
