"""CoNLL's columns (Tjong Kim Sang & De Meulder 2003): a token a line with its tag, a blank line between sentences."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Self

from foundling.corpus.encodings import settle_encoding
from foundling.corpus.readers.base import TextConfig
from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import LIKELY, NO, Fault, Row, text_lines

SUFFIXES = (".conll", ".conll03", ".conllu", ".bio", ".iob", ".iob2", ".bioes", ".bmes")
_DOCUMENT = "-DOCSTART-"
_BLANK = " \t\r"
_BLANKS = re.compile(f"[{_BLANK}]+")
_TAG = re.compile(r"O|[BIESLUM]-\S+")
_TAGGED_SHARE = 0.9
_LINES_TO_GUESS = 200
# CoNLL-U (universaldependencies.org/format): ID FORM LEMMA UPOS and six more; 3-4 is a token of several words.
_UNIVERSAL_COLUMNS, _FORM, _UPOS = 10, 1, 3
_NO_WORD = re.compile(r"\d+[-.]\d+")

Block = list[tuple[int, list[str] | Fault]]
"""The lines of a sentence, with their numbers."""


class Config(TextConfig):
    """How the sentences of one file are read. Tabs part columns where most of its first lines have one, else blanks."""

    token_column: int | None = None
    """Which column holds the token, from 0 or, below 0, from the right; None: the first (of CoNLL-U the second)."""
    tag_column: int | None = None
    """Which column holds the tag; None: the last (of CoNLL-U the fourth)."""
    comments: bool | None = None
    """Whether lines that begin with `#` are left out; None: those before a sentence that have not as many columns as
    its tokens (or those of most sentences, where it has no other line)."""

    def settle(self, stream: Stream, name: str) -> Self:
        encoding = settle_encoding(stream, self.encoding)
        if encoding is None:
            return self
        is_universal = _is_universal(stream, encoding)
        token = self.token_column if self.token_column is not None else _FORM if is_universal else 0
        tag = self.tag_column if self.tag_column is not None else _UPOS if is_universal else -1
        return self.model_copy(update={"encoding": encoding, "token_column": token, "tag_column": tag})

    def build(self) -> "Conll":
        return Conll(self)


class Conll:
    """Fields of a row: tokens, tags. Its place is its first line."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def read(self, stream: Stream) -> Iterator[Row | Fault]:
        block: Block = []
        has_tabs, usual_width = _shape(stream, self.config.encoding)
        for number, line in text_lines(stream, self.config.encoding):
            columns = line if isinstance(line, Fault) else _columns(line, has_tabs)
            if columns and not (isinstance(columns, list) and columns[0] == _DOCUMENT):
                block.append((number, columns))
            else:
                yield from self._sentence(block, usual_width)
                block = []
        yield from self._sentence(block, usual_width)

    def _sentence(self, block: Block, usual_width: int) -> Iterator[Row | Fault]:
        block = self._without_comments(block, usual_width)
        if not block:
            return
        where, tokens, tags = str(block[0][0]), [], []
        width = next((len(columns) for _, columns in block if isinstance(columns, list)), 0)
        at, tag_at = self.config.token_column or 0, -1 if self.config.tag_column is None else self.config.tag_column
        is_universal = width == _UNIVERSAL_COLUMNS and at == _FORM
        for number, columns in block:
            if isinstance(columns, Fault):
                yield Fault(where, f"line {number}: {columns.reason}")
                return
            if is_universal and _NO_WORD.fullmatch(columns[0]):
                continue
            fault = _fault(columns, width, at, tag_at)
            if fault:
                yield Fault(where, f"line {number} {fault}")
                return
            tokens.append(columns[at])
            tags.append(columns[tag_at])
        if tokens:
            yield Row(where, {"tokens": tokens, "tags": tags})

    def _without_comments(self, block: Block, usual_width: int) -> Block:
        if self.config.comments is not None:
            return [item for item in block if not (self.config.comments and _begins_with_hash(item[1]))]
        first = next((n for n, (_, columns) in enumerate(block) if not _begins_with_hash(columns)), len(block))
        following = block[first][1] if first < len(block) else None
        width = len(following) if isinstance(following, list) else usual_width
        kept = [item for item in block[:first] if isinstance(item[1], list) and len(item[1]) == width]
        return [*kept, *block[first:]]


def _begins_with_hash(columns: list[str] | Fault) -> bool:
    return isinstance(columns, list) and columns[0].startswith("#")


def _columns(line: str, has_tabs: bool) -> list[str]:
    """The columns of a line; none where it is blank."""
    if not line.strip(_BLANK):
        return []
    return [part.strip(" ") for part in line.split("\t")] if has_tabs else _BLANKS.split(line.strip(_BLANK))


def _fault(columns: list[str], width: int, token_column: int, tag_column: int) -> str:
    if len(columns) != width or width < 2:
        hint = "; comments=true leaves lines out that begin with #" if columns[0].startswith("#") else ""
        return f"has {len(columns)} column{'s' * (len(columns) != 1)}, and its sentence {max(2, width)}{hint}"
    for what, at in (("token", token_column), ("tag", tag_column)):
        if not -width <= at < width:
            return f"has no column {at} ({what}_column); it has {width}"
        if not columns[at]:
            return f"has no {what}"
    return ""


def _shape(stream: Stream, encoding: str | None) -> tuple[bool, int]:
    """Whether most of the first lines have tabs, and how many columns most have then."""
    lines = _first_lines(stream, encoding)
    has_tabs = 2 * sum("\t" in line for line in lines) > len(lines)
    counts = Counter(len(_columns(line, has_tabs)) for line in lines)
    return has_tabs, counts.most_common(1)[0][0] if counts else 2


def _first_lines(stream: Stream, encoding: str | None) -> list[str]:
    """The first lines that are not blank, without those that may be comments."""
    lines = stream.head.decode(encoding or "utf-8", errors="replace").split("\n")[:_LINES_TO_GUESS]
    return [line for line in lines if line.strip() and not line.startswith(("#", _DOCUMENT))]


def _is_universal(stream: Stream, encoding: str) -> bool:
    """Whether the first tokens have CoNLL-U's ten columns and are numbered."""
    lines = _first_lines(stream, encoding)
    return bool(lines) and all(line[0].isdigit() and line.count("\t") + 1 == _UNIVERSAL_COLUMNS for line in lines)


def certainty(head: bytes, text: str) -> int:
    """Lines of at least two columns of which the last is a tag; a few may be comments."""
    rows = [line.split() for line in text.split("\n")[:-1] if line.strip() and not line.startswith(_DOCUMENT)]
    num_tagged = sum(len(row) > 1 and _TAG.fullmatch(row[-1]) is not None for row in rows)
    return LIKELY if rows and num_tagged >= _TAGGED_SHARE * len(rows) else NO
