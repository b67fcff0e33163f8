"""Sources (files, folders, globs) to an ordered list of input files with stable names."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.files import sha256_of
from foundling.core.log import logger
from foundling.core.registry import load_part, part_names
from foundling.corpus.streams import COMPRESSIONS

READERS = "corpus.readers"


@dataclass(frozen=True)
class InputFile:
    """One file to read. `name` is its path from its source's name on, whatever folder that lies in."""

    path: Path
    name: str
    source: str
    reader: PartConfig
    num_bytes: int


def find_inputs(sources: Sequence[Path | str], reader: PartConfig | None, leave_out: Path) -> list[InputFile]:
    """All files of the sources, in the order of the sources and sorted by path inside each.

    reader: reads every file; None: by suffix, and files of unknown suffix in folders are left out (told).
    leave_out: the folder that is to be written, should it lie inside a source. Names that begin with a dot are left
    out inside folders. A file that several sources hold is taken once. Raises UserError for a path that does not
    exist, a file of unknown kind that is named itself, and where nothing is found.
    """
    if not sources:
        raise UserError("a corpus needs at least one source", do="name a file, a folder or a glob")
    suffixes = _suffixes()
    found: list[InputFile] = []
    seen: set[str] = set()
    names: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for given in sources:
        for top, path, name in _expanded(given, leave_out):
            config = reader or suffixes.get(_suffix(path))
            if config is None and path == top:
                raise UserError(
                    f"a source must be a file of a known kind: {_kinds()}",
                    got=str(path),
                    do="set format=text or format=jsonl to read it as such",
                )
            if config is None:
                unknown[_suffix(path) or path.name] += 1
                continue
            real = os.path.realpath(path)
            if real in seen:
                continue
            seen.add(real)
            names[name] += 1
            unique = name if names[name] == 1 else f"{name}~{names[name]}"
            found.append(InputFile(path, unique, _source_name(top), config, path.stat().st_size))
    if unknown:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in unknown.most_common(8))
        logger.info("files of other kinds are left out: %d (%s)", unknown.total(), kinds)
    if not found:
        raise UserError(
            f"the sources must hold files of a known kind: {_kinds()}",
            got=f"none in {', '.join(str(s) for s in sources)}",
        )
    return found


def hashes_of(files: Sequence[InputFile], workers: int) -> dict[str, str]:
    """name -> sha256 of each file's bytes; a file that cannot be opened has `unreadable` for its hash."""
    with ThreadPoolExecutor(max(1, workers)) as pool:  # hashing releases the interpreter's lock
        return dict(zip((file.name for file in files), pool.map(_hash_or_mark, files), strict=True))


def _hash_or_mark(file: InputFile) -> str:
    try:
        return sha256_of(file.path)
    except OSError:
        return "unreadable"  # the reading stage meets the same error, tells and counts it


def _suffixes() -> dict[str, PartConfig]:
    known = {}
    for kind in part_names(READERS):
        part = load_part(READERS, kind)
        known.update(dict.fromkeys(part.SUFFIXES, part.Config(kind=kind)))
    return known


def _kinds() -> str:
    """`text (.txt, .md, .rst, .py and 30 more), jsonl (.jsonl, .ndjson); each also .gz, .zst`"""
    told = []
    for kind in part_names(READERS):
        known = load_part(READERS, kind).SUFFIXES
        more = f" and {len(known) - 4} more" if len(known) > 4 else ""
        told.append(f"{kind} ({', '.join(known[:4])}{more})")
    return f"{', '.join(told)}; each also {', '.join(COMPRESSIONS)}"


def _suffix(path: Path) -> str:
    bare = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return bare.suffix.lower()


def _source_name(top: Path) -> str:
    """A folder's name; a file's name up to its first dot after the first character."""
    name = _text(top.resolve().name or "root")
    if top.is_dir():
        return name
    bare = name.removesuffix(Path(name).suffix) if Path(name).suffix.lower() in COMPRESSIONS else name
    return Path(bare).stem


def _expanded(given: Path | str, leave_out: Path) -> Iterator[tuple[Path, Path, str]]:
    """(the source itself, a file of it, the file's stable name)"""
    path = Path(given).expanduser()
    if path.exists():
        yield from _files_of(path, path.name, leave_out)
    elif glob.has_magic(str(path)):
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise UserError("a glob must match something", got=str(given))
        fixed = Path(*_before_magic(path.parts))
        for match in map(Path, matches):
            yield from _files_of(match, match.relative_to(fixed).as_posix(), leave_out)
    else:
        raise UserError("a source must exist", got=str(given), do="name a file, folder or glob of text")


def _before_magic(parts: Sequence[str]) -> list[str]:
    kept = []
    for part in parts:
        if glob.has_magic(part):
            break
        kept.append(part)
    return kept


def _files_of(top: Path, name: str, leave_out: Path) -> Iterator[tuple[Path, Path, str]]:
    if not top.is_dir():
        if top.is_file():
            yield top, top, _text(name)
        return
    root = _text(top.resolve().name if name in ("", ".", "..") else name)
    skipped = os.path.realpath(leave_out)
    for path in _walk(top, frozenset(), skipped):
        yield top, path, f"{root}/{_text(path.relative_to(top).as_posix())}"


def _walk(folder: Path, above: frozenset[str], skipped: str) -> Iterator[Path]:
    """Files below, sorted by name; a link to a folder above itself is a loop and is not entered."""
    real = os.path.realpath(folder)
    if real in above or real == skipped:
        return
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        logger.warning("%s could not be listed and is left out: %s", folder, error.strerror or error)
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, above | {real}, skipped)
        elif entry.is_file():
            yield entry


def _text(name: str) -> str:
    """A file name that is not UTF-8 comes with lone surrogates, which no table can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
