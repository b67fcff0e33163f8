"""Sources (files, folders, globs, addresses, standard input) to an ordered list of input files with stable names."""

import glob
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.files import hash_of, holds, sha256_of
from foundling.core.log import logger
from foundling.core.registry import load_part, part_names
from foundling.corpus.readers.base import Problem
from foundling.corpus.remote import RemoteFile, is_url, list_files
from foundling.corpus.sniff import format_of
from foundling.corpus.streams import COMPRESSIONS, Stream, compression

READERS = "corpus.readers"
STDIN = "-"
_STDIN_NAME = "stdin"


@dataclass(frozen=True)
class InputFile:
    """One file to read. `name` is its path from its source's name on, whatever folder that lies in."""

    path: Path | RemoteFile
    name: str
    source: str
    reader: PartConfig
    num_bytes: int


class Inputs(list[InputFile]):
    """The files in their order, and what was found that could not become one: (name, problem).

    What came through standard input lies in a temporary file for as long as this object lives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[tuple[str, Problem]] = []
        self.spooled: list[tempfile.TemporaryDirectory[str]] = []


def find_inputs(sources: Sequence[Path | str], reader: PartConfig | None, leave_out: Path) -> Inputs:
    """All files of the sources, in the order of the sources and sorted by path inside each.

    reader: reads every file; None: by suffix, and by content where there is no suffix or it is plainly wrong (a
    Parquet file named .csv); files of unknown suffix in folders are left out (told). `-` is standard input.
    leave_out: the folder that is to be written, should it lie inside a source. Names that begin with a dot are left
    out inside folders. A file that several sources hold is taken once. Raises UserError for a path that does not
    exist, a file of unknown kind that is named itself, and where nothing is found.
    """
    if not sources:
        raise UserError("a corpus needs at least one source", do="name a file, a folder or a glob")
    found = _Finder(reader, leave_out)
    for given in sources:
        found.add(given)
    return found.result(sources)


class _Finder:
    def __init__(self, reader: PartConfig | None, leave_out: Path) -> None:
        self._reader = reader
        self._skipped = os.path.realpath(leave_out)
        self._suffixes = _suffixes()
        self._inputs = Inputs()
        self._seen: set[str] = set()
        self._names: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()

    def add(self, given: Path | str) -> None:
        if str(given) == STDIN:
            self._take(_spooled(self._inputs), _STDIN_NAME, _STDIN_NAME, is_named=True)
            return
        if is_url(str(given)):
            top = str(given).rstrip("/")
            files = list_files(str(given))
            for file in files:
                name = f"{_last(top)}{file.url.removeprefix(top)}" if file.url.startswith(top + "/") else file.name
                self._take(file, name, _bare_name(_last(top)), is_named=len(files) == 1)
            return
        for top_path, path, name in expanded(given, self._skipped, self._inputs.problems):
            real = os.path.realpath(path)
            if real in self._seen:
                continue
            if self._take(path, name, _source_name(top_path), is_named=path == top_path):
                self._seen.add(real)

    def result(self, sources: Sequence[Path | str]) -> Inputs:
        if self._unknown:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in self._unknown.most_common(8))
            logger.info("files of other kinds are left out: %d (%s)", self._unknown.total(), kinds)
        if not self._inputs:
            problems = "; ".join(f"{name}: {problem.detail}" for name, problem in self._inputs.problems[:3])
            raise UserError(
                f"the sources must hold files of a known kind: {_kinds()}",
                got=f"none in {', '.join(str(s) for s in sources)}{problems and f' ({problems})'}",
            )
        return self._inputs

    def _take(self, path: Path | RemoteFile, name: str, source: str, *, is_named: bool) -> bool:
        config = self._reader or self._by_name_and_content(path, name, is_named)
        if config is None and is_named:
            raise UserError(
                f"a source must be a file of a known kind: {_kinds()}",
                got=str(path),
                do="set format=text or format=jsonl to read it as such",
            )
        if config is None:
            self._unknown[suffix_of(path.name) or path.name] += 1
            return False
        self._names[name] += 1
        unique = name if self._names[name] == 1 else f"{name}~{self._names[name]}"
        self._inputs.append(InputFile(path, unique, source, config, _size(path)))
        return True

    def _by_name_and_content(self, path: Path | RemoteFile, name: str, is_named: bool) -> PartConfig | None:
        suffix = suffix_of(path.name) if name != _STDIN_NAME else ""
        by_name = self._suffixes.get(suffix)
        if by_name is None and suffix and not is_named:
            return None
        try:
            packed, kind = self._content(path, by_name, suffix)
        except OSError:
            return by_name  # the reading meets the same error, tells and counts it
        if by_name is not None and kind is not None and kind != by_name.kind:
            self._problem(name, f"it is {kind}, whatever its name says, and is read as {kind}")
        elif packed is not None and name != _STDIN_NAME and Path(path.name).suffix.lower() != packed:
            self._problem(name, f"it is compressed ({packed}), which its name does not say")
        elif packed is None and Path(path.name).suffix.lower() in COMPRESSIONS and _size(path):
            self._problem(name, "it is not compressed, whatever its name says")
        if kind is None:
            return by_name
        if by_name is None:
            logger.info("%s is read as %s, by its content (format=KIND sets it)", name, kind)
        return by_name if by_name is not None and kind == by_name.kind else _config(kind)

    def _content(
        self, path: Path | RemoteFile, by_name: PartConfig | None, suffix: str
    ) -> tuple[str | None, str | None]:
        """The compression's suffix, and the format that the content shows."""
        with path.open("rb") as file:
            codec = compression(file.read(16))
        kind = format_of(Stream(path).head, by_name.kind if by_name is not None else None, is_suffix=bool(suffix))
        return codec.suffix if codec is not None else None, kind

    def _problem(self, name: str, detail: str) -> None:
        self._inputs.problems.append((name, Problem("other_format", detail)))


def settle(files: Sequence[InputFile], **given: Any) -> dict[str, PartConfig]:
    """File name -> its reader with everything fixed that depends on the file; what was guessed is told, once a guess.

    given: settings for all readers that have them (`text_field`, `encoding`); None is none.
    """
    settled: dict[str, PartConfig] = {}
    guesses: dict[tuple[str, Any], list[str]] = {}
    for file in files:
        fields = type(file.reader).model_fields
        wanted = {key: value for key, value in given.items() if value is not None and key in fields}
        before: Any = type(file.reader).model_validate({**file.reader.model_dump(), **wanted})
        try:
            after = before.settle(Stream(file.path), file.name)
        except OSError:
            after = before  # the reading meets the same error, tells and counts it
        settled[file.name] = after
        for key in fields:
            value = getattr(after, key)
            if getattr(before, key) is None and value not in (None, *_EXPECTED.get(key, ())):
                guesses.setdefault((key, value), []).append(file.name)
    for (key, value), names in guesses.items():
        where = names[0] if len(names) == 1 else f"{len(names)} files ({names[0]}, ...)"
        logger.info("%s: %s %r is a guess (%s=... sets it)", where, _GUESSES.get(key, key), value, key)
    return settled


_EXPECTED: Mapping[str, tuple[Any, ...]] = {"text_field": ("text",), "encoding": ("utf-8",), "header": (True,)}
"""Values that nobody needs to be told of."""
_GUESSES = {"text_field": "the text field", "encoding": "the encoding", "list_field": "the list of documents"}


def hashes_of(files: Sequence[InputFile], workers: int) -> dict[str, str]:
    """name -> sha256 of each file's bytes; a file that cannot be opened has `unreadable` for its hash.

    A file elsewhere is not read twice: the hash of its address and size stands for it.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:  # hashing releases the interpreter's lock
        return dict(zip((file.name for file in files), pool.map(_hash_or_mark, files), strict=True))


def _hash_or_mark(file: InputFile) -> str:
    if isinstance(file.path, RemoteFile):
        return hash_of(file.path.identity)
    try:
        return sha256_of(file.path)
    except OSError:
        return "unreadable"  # the reading stage meets the same error, tells and counts it


def _suffixes() -> dict[str, PartConfig]:
    return {suffix: _config(kind) for kind in part_names(READERS) for suffix in load_part(READERS, kind).SUFFIXES}


def _config(kind: str) -> PartConfig:
    config: PartConfig = load_part(READERS, kind).Config(kind=kind)
    return config


def _kinds() -> str:
    """`text (.txt, .md, .rst, .py and 30 more), jsonl (.jsonl, .ndjson); each also .gz, .zst`"""
    told = []
    for kind in part_names(READERS):
        known = load_part(READERS, kind).SUFFIXES
        more = f" and {len(known) - 4} more" if len(known) > 4 else ""
        told.append(f"{kind} ({', '.join(known[:4])}{more})")
    return f"{', '.join(told)}; each also {', '.join(COMPRESSIONS)}"


def suffix_of(name: str) -> str:
    """The suffix that tells a format: lower case, not a compression's."""
    path = Path(name)
    bare = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return bare.suffix.lower()


def _size(path: Path | RemoteFile) -> int:
    if isinstance(path, RemoteFile):
        return path.num_bytes
    try:
        return path.stat().st_size
    except OSError:
        return 0  # the reading meets the same error, tells and counts it


def _source_name(top: Path) -> str:
    """A folder's name; a file's name up to its first dot after the first character."""
    name = _text(top.resolve().name or "root")
    return name if top.is_dir() else _bare_name(name)


def _bare_name(name: str) -> str:
    bare = name.removesuffix(Path(name).suffix) if Path(name).suffix.lower() in COMPRESSIONS else name
    return Path(bare).stem


def _last(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _spooled(inputs: Inputs) -> Path:
    """Standard input as a file: its format is told by looking, Parquet needs seeking, and a build may start again."""
    folder = tempfile.TemporaryDirectory(prefix="foundling-")
    inputs.spooled.append(folder)
    path = Path(folder.name) / _STDIN_NAME
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    return path


def expanded(given: Path | str, skipped: str, problems: list[tuple[str, Problem]]) -> Iterator[tuple[Path, Path, str]]:
    """(the source itself, a file of it, the file's stable name)

    skipped: the real path of a folder that is left out. problems: what could not be listed is added to it. Raises
    UserError for a path that does not exist and a glob that matches nothing.
    """
    path = Path(given).expanduser()
    try:
        exists = path.exists()
    except OSError as error:  # below a folder that may not be entered
        raise UserError("a source must be one that can be read", got=f"{given}: {_reason(error)}") from None
    if exists:
        yield from _files_of(path, path.name, skipped, problems)
    elif glob.has_magic(str(path)):
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise UserError("a glob must match something", got=str(given))
        fixed = Path(*_before_magic(path.parts))
        for match in map(Path, matches):
            yield from _files_of(match, match.relative_to(fixed).as_posix(), skipped, problems)
    else:
        raise UserError("a source must exist", got=str(given), do="name a file, folder or glob")


def _before_magic(parts: Sequence[str]) -> list[str]:
    kept = []
    for part in parts:
        if glob.has_magic(part):
            break
        kept.append(part)
    return kept


def _files_of(
    top: Path, name: str, skipped: str, problems: list[tuple[str, Problem]]
) -> Iterator[tuple[Path, Path, str]]:
    if not top.is_dir():
        if top.is_file():
            yield top, top, _text(name)
        elif top.exists():
            raise UserError(
                "a source must be a file or a folder",
                got=f"{top}, a pipe or a device",
                do="give it on standard input: ... | foundling corpus build -",
            )
        else:  # a match of a glob
            problems.append((_text(name), Problem("unreadable", "it is a link to something that is not there")))
        return
    root = _text(top.resolve().name if name in ("", ".", "..") else name)
    for path in _walk(top, frozenset(), skipped, problems):
        yield top, path, f"{root}/{_text(path.relative_to(top).as_posix())}"


def _walk(folder: Path, above: frozenset[str], skipped: str, problems: list[tuple[str, Problem]]) -> Iterator[Path]:
    """Files below, sorted by name; a link to a folder above itself is a loop and is not entered."""
    real = os.path.realpath(folder)
    if real == skipped:
        return
    if _is_corpus(folder):  # what was dropped, the problems and the report are no documents
        logger.info("%s is a corpus folder: its documents are read", folder)
        folder = folder / "documents"
    if real in above:
        problems.append((_text(str(folder)), Problem("loop", "it is a link to a folder above itself, not entered")))
        return
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        problems.append((_text(str(folder)), Problem("unreadable", f"it could not be listed: {_reason(error)}")))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            is_dir, is_file = entry.is_dir(), entry.is_file()
            is_lost = not is_dir and not is_file and not entry.exists()
        except OSError as error:
            problems.append((_text(str(entry)), Problem("unreadable", f"it could not be read: {_reason(error)}")))
            continue
        if is_dir:
            yield from _walk(entry, above | {real}, skipped, problems)
        elif is_file:
            yield entry
        elif is_lost:
            problems.append((_text(str(entry)), Problem("unreadable", "it is a link to something that is not there")))


def _is_corpus(folder: Path) -> bool:
    try:
        return (folder / "documents").is_dir() and holds(folder, "corpus")
    except (UserError, OSError):  # somebody else's manifest.json
        return False


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _text(name: str) -> str:
    """A file name that is not UTF-8 comes with lone surrogates, which no table can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
