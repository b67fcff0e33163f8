"""Files of examples: found, their format settled and told, every row that makes no example named."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.files import hash_of, sha256_of
from foundling.core.log import logger
from foundling.core.registry import load_part, part_names
from foundling.corpus.encodings import guess_encoding_of
from foundling.corpus.inputs import expanded, suffix_of
from foundling.corpus.readers.base import Problem
from foundling.corpus.remote import RemoteFile, is_url, list_files
from foundling.corpus.streams import COMPRESSIONS, Stream
from foundling.tasks.formats.base import FOLDER, LIKELY, MAYBE, Fault

T = TypeVar("T")
Found = Literal["told", "name", "content"]
"""How the format of a file was settled on: by the user, by its name's suffix, by what it holds."""

_HOW = {"told": "as told", "name": "by its name", "content": "by its content"}
_SHOWN = 5
"""Reasons that are shown of faulty rows, and places of one reason; the others are counted."""
_NOWHERE = os.devnull
"""`expanded` leaves out a folder that is being written; here none is."""


class RowFault(Exception):
    """What is wrong with one row, in words that go on from `it`: raised by what makes examples, told with its place."""


class Data(dict[str, Any]):
    """The fields of a row. `chosen` counts, for all rows of its file, which field was taken for which role."""

    __slots__ = ("chosen",)

    def __init__(self, fields: Mapping[str, Any], chosen: Counter[tuple[str, str]]) -> None:
        super().__init__(fields)
        self.chosen = chosen


@dataclass(frozen=True, slots=True)
class Record:
    place: str
    """`train.jsonl:17`, for people."""
    data: Data


@dataclass(frozen=True)
class DataFile:
    """A file, and how it is read."""

    path: Path | RemoteFile
    name: str
    """Its path from its source's name on; `~2` behind it where another file is called so."""
    format: PartConfig
    """With all that depends on the file fixed."""
    found: Found
    guesses: tuple[str, ...] = ()
    """What is to be told of the format's settings: `delimiter=';'`."""
    chosen: Counter[tuple[str, str]] = field(default_factory=Counter, compare=False)
    """(role, field): in how many rows this field was taken for this role."""

    def sha256(self) -> str:
        """The hash of the file's bytes; of a file elsewhere that of its address and size."""
        return hash_of(self.path.identity) if isinstance(self.path, RemoteFile) else sha256_of(self.path)


@dataclass(frozen=True)
class Records:
    """The rows of files, in order."""

    files: list[DataFile]
    records: list[Record]
    faults: list[tuple[str, str]]
    """(place, reason) of what could not be read."""

    @property
    def name(self) -> str:
        """For messages: the file, or the first one and how many more."""
        more = len(self.files) - 1
        return f"{self.files[0].path}" + (f" and {more} more file{'s' * (more > 1)}" if more else "")

    def must_be_whole(self) -> None:
        """UserError where a row is faulty."""
        if self.faults:
            raise UserError(f"{self.name}: {_counted(self, self.faults, 'could not be read')}")


class Examples(list[T], Generic[T]):
    """Examples in the order of their rows."""

    def __init__(self, files: Sequence[DataFile]) -> None:
        super().__init__()
        self.files = list(files)
        self.places: list[str] = []
        """Of each example, the place of its row."""
        self.left_out: list[tuple[str, str]] = []
        """(place, reason) of each faulty row."""


def read_records(sources: str | Path | Sequence[str | Path], format: PartConfig | str | None = None) -> Records:
    """The rows of all files of the sources: files, folders (all files of known formats in them), globs, addresses.

    format: a format's config or name, for every file; None: by the file's suffix, and by content where that does not
    tell, or plainly errs. It is told with the number of rows. What is wrong with single rows is in `faults`. UserError:
    a source that does not exist; a file that cannot be opened, is of no known format, or not at all of the one it must
    be of.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    files = _files(given, _config(format) if isinstance(format, str) else format)
    records: list[Record] = []
    faults: list[tuple[str, str]] = []
    counts: Counter[tuple[str, ...]] = Counter()
    for file in files:
        before = len(records)
        stream = Stream(file.path)
        try:
            for row in file.format.build().read(stream):
                place = f"{file.name}:{row.where}"
                if isinstance(row, Fault):
                    faults.append((place, row.reason))
                else:
                    records.append(Record(place, Data(row.data, file.chosen)))
        except OSError as error:
            raise _unreadable(file.path, error) from error
        if stream.damage:
            faults.append((file.name, f"the archive is damaged ({stream.damage}); what could be read is used"))
        counts[_how(file)] += len(records) - before
    _tell_formats(files, counts)
    return Records(files, records, faults)


def _config(kind: str) -> PartConfig:
    try:
        return Part(FOLDER).read(kind)
    except ValueError as error:
        raise UserError(f"format: {error}") from None


def _files(sources: Sequence[str | Path], told: PartConfig | None) -> list[DataFile]:
    found: list[DataFile] = []
    others: Counter[str] = Counter()
    problems: list[tuple[str, Problem]] = []
    seen: set[str] = set()
    names: Counter[str] = Counter()
    for source in sources:
        for top, path, name in _expanded(source, problems):
            identity = str(path) if isinstance(path, RemoteFile) else os.path.realpath(path)
            if identity in seen:
                continue
            file = _settled(path, name, told, is_named=path == top)
            if file is None:
                others[suffix_of(path.name) or path.name] += 1
                continue
            seen.add(identity)
            names[name] += 1
            found.append(file if names[name] == 1 else replace(file, name=f"{name}~{names[name]}"))
    for name, problem in problems:
        logger.warning("%s: %s", name, problem.detail)
    if others:
        shown = ", ".join(f"{suffix} ({count})" for suffix, count in others.most_common(8))
        logger.info("files of other kinds are left out: %d (%s)", others.total(), shown)
    if not found:
        raise UserError(
            f"there must be a file of examples: {_kinds()}",
            got=f"none in {', '.join(map(str, sources)) or 'no source'}",
        )
    return found


def _expanded(
    source: str | Path, problems: list[tuple[str, Problem]]
) -> list[tuple[Path | RemoteFile, Path | RemoteFile, str]]:
    """(the source itself, a file of it, the file's name)"""
    if not is_url(str(source)):
        return list(expanded(source, _NOWHERE, problems))
    files = list_files(str(source))
    return [(file if len(files) == 1 else files[0], file, file.name) for file in files]


def _settled(path: Path | RemoteFile, name: str, told: PartConfig | None, *, is_named: bool) -> DataFile | None:
    """The file with its format; None: of no known one, in a folder. UserError: the same, of a file that is named."""
    try:
        config, found = (told, "told") if told is not None else _guess(path, is_named)
        if config is None:
            if is_named:
                raise UserError(
                    f"{path} must be of a known format: {_kinds()}", got="none of them", do="set task.format=KIND"
                )
            return None
        after: Any = config.settle(Stream(path), name)  # type: ignore[attr-defined]
    except OSError as error:
        raise _unreadable(path, error) from error
    guesses = tuple(
        f"{key}={value!r}"
        for key in type(after).model_fields
        if getattr(config, key) is None and (value := getattr(after, key)) not in (None, (), "utf-8")
    )
    return DataFile(path, name, after, found, guesses)


def _guess(path: Path | RemoteFile, is_named: bool) -> tuple[PartConfig | None, Found]:
    """The format that a file's name and content show, and which of them did. In a folder may be anything."""
    parts = {kind: load_part(FOLDER, kind) for kind in part_names(FOLDER)}
    suffix = suffix_of(path.name)
    by_name = next((kind for kind, part in parts.items() if suffix in part.SUFFIXES), None)
    head = Stream(path).head
    guess = guess_encoding_of(head, is_whole=False)
    text = head.decode(guess.name, errors="ignore") if guess.name is not None else ""
    grades = {kind: part.certainty(head, text) for kind, part in parts.items()}
    best = max(grades, key=lambda kind: (grades[kind], kind == by_name))
    if by_name is not None and (grades[best] < LIKELY or grades[best] <= grades[by_name]):
        return parts[by_name].Config(kind=by_name), "name"
    return (parts[best].Config(kind=best) if grades[best] >= (MAYBE if is_named else LIKELY) else None), "content"


def _kinds() -> str:
    told = [f"{kind} ({', '.join(load_part(FOLDER, kind).SUFFIXES) or 'by content'})" for kind in part_names(FOLDER)]
    return f"{', '.join(told)}; each also {', '.join(COMPRESSIONS)}"


def _how(file: DataFile) -> tuple[str, ...]:
    return (file.format.kind, _HOW[file.found], *file.guesses)


def _tell_formats(files: Sequence[DataFile], counts: Mapping[tuple[str, ...], int]) -> None:
    for how, count in counts.items():
        kind, by, *guesses = how
        names = _names([file.name for file in files if _how(file) == how])
        guessed = f"; guessed: {', '.join(guesses)}" if guesses else ""
        logger.info("%s: %s rows, read as %s (%s%s)", names, f"{count:,}", kind, by, guessed)


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} files ({names[0]}, ...)"


def _unreadable(path: Path | RemoteFile, error: OSError) -> UserError:
    return UserError(f"{path} must be a file that can be read", got=error.strerror or str(error))


def examples_of(records: Records, make: Callable[[Data], T], on_bad: Literal["error", "skip"] = "error") -> Examples[T]:
    """An example of each record; which fields were taken is told once for each file.

    make: raises `RowFault` for a record that makes none. on_bad: `error`: a UserError that shows the first faulty rows
    and counts all; `skip`: they are left out, told and counted in `left_out`.
    """
    found: Examples[T] = Examples(records.files)
    found.left_out += records.faults
    for record in records.records:
        try:
            found.append(make(record.data))
            found.places.append(record.place)
        except RowFault as fault:
            found.left_out.append((record.place, str(fault)))
    if found.left_out and on_bad == "error":
        counted = _counted(records, found.left_out, "make no example")
        raise UserError(f"{records.name}: {counted}\n  mend them, or leave them out: task.bad_rows=skip")
    _tell_fields(records.files)
    if found.left_out:
        logger.warning("%s: %s", records.name, _counted(records, found.left_out, "are left out"))
    return found


def _tell_fields(files: Sequence[DataFile]) -> None:
    names: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for file in files:
        names.setdefault(tuple(file.chosen), []).append(file.name)
    for chosen, of in names.items():
        if chosen:
            logger.info("%s: %s", _names(of), ", ".join(f"{role} is {name!r}" for role, name in chosen))


def _counted(records: Records, faults: Sequence[tuple[str, str]], what: str) -> str:
    """`3 of 872 rows are left out`, and below it the first reasons, each with its first places."""
    num_unread = len(records.faults)
    by_reason: dict[str, list[str]] = {}
    for place, reason in faults:
        by_reason.setdefault(reason, []).append(place)
    lines = []
    for reason, places in list(by_reason.items())[:_SHOWN]:
        more = len(places) - _SHOWN
        lines.append(f"\n  {', '.join(places[:_SHOWN])}{f' and {more} more' if more > 0 else ''}: {reason}")
    if (more := len(by_reason) - _SHOWN) > 0:
        lines.append(f"\n  and {more} more reasons")
    return f"{len(faults)} of {len(records.records) + num_unread} rows {what}{''.join(lines)}"
