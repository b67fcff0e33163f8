"""Texts to evaluate on: corpus folders, and files of the kinds that the corpus readers know."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.files import holds
from foundling.core.log import logger
from foundling.corpus.folder import KIND, Corpus, open_corpus
from foundling.corpus.inputs import InputFile, find_inputs, settle
from foundling.corpus.readers.base import PROBLEMS, Problem, Record
from foundling.corpus.streams import Stream

_NOWHERE = Path(os.devnull)
"""`find_inputs` leaves out a folder that is being written; here none is."""


@dataclass(frozen=True)
class _Opened:
    """One path that the user named: a corpus, or files."""

    corpus: Corpus | None
    files: list[InputFile]


def read_texts(
    paths: Sequence[Path], *, split: str, reader: PartConfig | None = None, text_field: str | None = None
) -> Iterator[tuple[str, str]]:
    """(source, text) of every document, in order, in bounded memory; empty documents are left out.

    paths: corpus folders, of which `split` is read, or files and folders of raw text (.txt, .md, .jsonl, ..., also .gz
    and .zst), which are read as they are. reader: the corpus reader of every file; None: by suffix. text_field: the
    key of the text in JSON lines; None: guessed. What cannot be used is told and counted. UserError, before the first
    text: a path that does not exist or holds nothing that can be read, a corpus folder without that split.
    """
    return _texts([_open(path, split, reader) for path in paths], split, text_field)


def _open(path: Path, split: str, reader: PartConfig | None) -> _Opened:
    if not holds(path, KIND):
        return _Opened(None, find_inputs([path], reader, _NOWHERE))
    corpus = open_corpus(path)
    if not corpus.num_documents(split):
        raise UserError(f"the corpus {path} must have documents in its split {split!r}", got="none", do="set split=...")
    return _Opened(corpus, [])


def _texts(opened: list[_Opened], split: str, text_field: str | None) -> Iterator[tuple[str, str]]:
    for one in opened:
        if one.corpus is not None:
            yield from ((document.source, document.text) for document in one.corpus.documents(split) if document.text)
        for file in one.files:
            yield from _file_texts(file, text_field)


def _file_texts(file: InputFile, text_field: str | None) -> Iterator[tuple[str, str]]:
    problems: Counter[str] = Counter()
    for item in _items(file, text_field):
        if isinstance(item, Problem) and item.kind == "no_text_field":
            raise UserError(f"{file.path}: {item.detail}")
        if isinstance(item, Problem):
            problems[item.kind] += item.count
        elif item.text:
            yield file.source, item.text
    for kind, count in problems.items():
        logger.warning("%s: %d %s", file.path, count, PROBLEMS[kind])


def _items(file: InputFile, text_field: str | None) -> Iterator[Record | Problem]:
    stream = Stream(file.path)
    try:
        yield from settle([file], text_field=text_field)[file.name].build().read(stream)
    except OSError as error:
        raise UserError(f"{file.path} could not be read: {error.strerror or error}") from error
    if stream.damage:
        yield Problem("damaged_archive", stream.damage)
