"""Which format a file's first bytes show."""

import csv
import io
import json
import re
from collections import Counter

from foundling.corpus.encodings import guess_encoding_of

_PAGE = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*(?:<!doctype html|<html[\s>])", re.IGNORECASE | re.DOTALL
)
_WARC = re.compile(rb"WARC/[01]\.\d+\r?\n")
_DELIMITERS = (",", "\t", ";")
_MIN_ROWS = 4


def format_of(head: bytes, by_name: str | None, *, is_suffix: bool) -> str | None:
    """The name of the reader for a file that begins so, or None for `by_name`.

    by_name: the reader that the suffix asks for. It is contradicted by what cannot be mistaken alone: Parquet and WARC,
    and JSON lines against one JSON document. Without it everything is tried; and without any suffix, text is text.
    """
    if head.startswith(b"PAR1"):
        return "parquet"
    if _WARC.match(head):
        return "warc"
    if by_name is not None and by_name not in ("json", "jsonl"):
        return None
    guess = guess_encoding_of(head, is_whole=False)
    if guess.name is None:
        return None
    text = head.decode(guess.name, errors="ignore").removeprefix("\ufeff")
    if (json_kind := _json_kind(text, by_name)) is not None:
        return json_kind
    if by_name is not None:
        return None
    if _PAGE.match(text):
        return "html"
    if is_suffix:
        return None
    return "csv" if _is_table(text) else "text"


def _json_kind(text: str, by_name: str | None) -> str | None:
    """json, jsonl, or None where it is neither, or may be either and has a name."""
    start = text.lstrip()
    if start.startswith("["):
        return "json" if re.match(r"\[\s*(?:\{|$)" if by_name else r"\[\s*[{\"]", start) else None
    if not start.startswith("{"):
        return None
    first, _, rest = start.partition("\n")
    if re.fullmatch(r"\{\s*", first):
        return "json"
    try:
        is_object = isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        is_object = by_name is None  # longer than what is here, or damaged
    return "jsonl" if is_object and rest.lstrip().startswith("{") else None if by_name else "json"


def _is_table(text: str) -> bool:
    """Whether every row has the same number of fields, of which there are several; the last row may be cut off."""
    lines = text.split("\n")
    for delimiter in _DELIMITERS:
        try:
            rows = [row for row in csv.reader(io.StringIO("\n".join(lines[:-1])), delimiter=delimiter) if row]
        except csv.Error:
            continue
        counts = Counter(map(len, rows))
        if len(rows) >= _MIN_ROWS and len(counts) == 1 and next(iter(counts)) > 1:
            return True
    return False
