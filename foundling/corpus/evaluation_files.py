"""The texts of evaluation files, whatever their layout: each string of each row, with a name to find it by.

JSON lines, JSON of any depth (SQuAD), CSV and TSV, Parquet, and text, of which each line is a row; compressed or not.
A file that cannot be read whole is an error: what is left out here would be left in the corpus.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from foundling.core.errors import UserError
from foundling.corpus.streams import COMPRESSIONS, Stream

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")


def evaluation_files(paths: Sequence[str]) -> list[Path]:
    """The files, and those of known formats below the folders, in order. Raises UserError where there is none."""
    result: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file) in _SUFFIXES)
            if not found:
                raise UserError(f"{path} must hold evaluation files", got=f"none of {', '.join(_SUFFIXES)}")
            result += found
        elif path.is_file():
            result.append(path)
        else:
            raise UserError("an evaluation file must exist", got=str(path))
    return result


def texts_of(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(place, text) of every string in the file; the place is that of its row: `line 17`, `row 3`, `data[4].title`.

    fields: only strings under keys (columns) of these names; none: all. A list of strings is one text, joined by
    spaces (the tokens of a sentence), and each of its strings is one too (the options of a question).
    Raises UserError where the file cannot be read, is malformed, or has no text under any of the fields.
    """
    found = False
    wanted = frozenset(fields)
    for place, row in _rows(path):
        for text in _strings(row, wanted, not wanted):
            found = True
            yield place, text
    if not found:
        where = f" under {', '.join(fields)}" if fields else ""
        raise UserError(f"an evaluation file must hold text{where}", got=f"none in {path}")


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    suffix = _suffix(path)
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
            return
        stream = Stream(path)
        text = b"".join(stream).decode("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"the evaluation file {path} could not be read: {' '.join(str(error).split())}") from error
    if stream.damage:
        raise UserError(f"the evaluation file {path} is damaged: {stream.damage}")
    if suffix == ".json":
        yield from _elements(_parsed(text, str(path)), "")
    elif suffix in (".csv", ".tsv"):
        csv.field_size_limit(max(len(text), csv.field_size_limit()))  # of the whole process: never lower
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",")
        for row in rows:
            yield f"line {rows.line_num}", row
    else:
        is_json = suffix in (".jsonl", ".ndjson")
        # Not splitlines: JSON may hold U+2028 inside its strings.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", _parsed(line, f"line {number} of {path}") if is_json else line


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} must be JSON", got=str(error)) from error


def _elements(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The rows of a JSON file: its smallest parts that are no lists of mappings and hold none."""
    if isinstance(value, dict):
        plain = {key: below for key, below in value.items() if not _holds_rows(below)}
        yield place or "top", plain
        for key, below in value.items():
            if _holds_rows(below):
                yield from _elements(below, f"{place}.{key}" if place else key)
    elif isinstance(value, list) and _holds_rows(value):
        for number, below in enumerate(value):
            yield from _elements(below, f"{place}[{number}]")
    else:
        yield place or "top", value


def _holds_rows(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(below, dict | list) for below in value)
    return isinstance(value, dict) and any(_holds_rows(below) for below in value.values())


def _strings(value: Any, fields: frozenset[str], inside: bool) -> Iterator[str]:
    if isinstance(value, str):
        if inside:
            yield value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _strings(below, fields, inside or key in fields)
    elif isinstance(value, list):
        yield from _of_list(value, fields, inside)


def _of_list(values: Iterable[Any], fields: frozenset[str], inside: bool) -> Iterator[str]:
    values = list(values)
    if inside and len(values) > 1 and all(isinstance(value, str) for value in values):
        yield " ".join(values)
    for value in values:
        yield from _strings(value, fields, inside)


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""
