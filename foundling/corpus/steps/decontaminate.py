"""Keeps evaluation sets out of the corpus: documents that share a run of words with one go, or are cut.

After Brown et al. 2020 (Language models are few-shot learners, appendix C): a document is contaminated where 13 words
in a row stand in an evaluation file too, case, punctuation and white space aside. Where most of an evaluation text is
in a script without spaces, the run is of characters. Evaluation texts that are shorter than a run are looked for as a
whole, if they are long enough to mean something. Runs of which fewer than half of the tokens differ are not looked for.

`cut` takes the shared runs out with 200 characters on either side, and pieces below 200 characters, as there. We
differ in two points: the pieces stay one document, and a run counts however many documents hold it (GPT-3 lets go of
those in more than 10: quotations and phrases of law), because that cannot be known from one document; `min_runs`
above 1 spares documents that merely quote.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field, model_validator

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.files import sha256_of
from foundling.corpus.document import Document, Drop
from foundling.corpus.evaluation_files import evaluation_files, texts_of
from foundling.corpus.shingles import Hashes, Tokens, runs_of, tokens_of

REASONS = {"contaminated": "shares a run of words or characters with a given evaluation file"}
_MAX_PIECES = 10
"""A document that would be cut into more pieces is dropped, as in GPT-3."""
_SHOWN_CHARACTERS = 80
_FILTER_FACTOR = 16
_BATCH_CHARACTERS = 1 << 18


class Config(PartConfig):
    """Which evaluation files, what counts as overlap, and what happens then."""

    against: list[str] = Field(default_factory=list)
    """Evaluation files, or folders of them: JSON lines, JSON, CSV, TSV, Parquet, text; at least one."""
    fields: list[str] = Field(default_factory=list)
    """Keys or columns whose text counts, at any depth; empty: all text of each row."""
    num_words: Annotated[int, Field(ge=1)] = 13
    """Words in a row that make an overlap, >= 1."""
    num_characters: Annotated[int, Field(ge=1)] = 20
    """Characters in a row, in scripts without spaces between words, >= 1. Thirteen English words are about as long."""
    min_words: Annotated[int, Field(ge=1)] = 8
    """An evaluation text shorter than `num_words` counts as a whole if it has as many words, >= 1."""
    min_characters: Annotated[int, Field(ge=1)] = 12
    """The same for characters, >= 1."""
    min_runs: Annotated[int, Field(ge=1)] = 1
    """Different runs that a document must share with the files, >= 1. A shared sentence of 20 words holds 8."""
    action: Literal["drop", "cut"] = "drop"
    """What happens to a document that overlaps: it goes, or the overlaps do."""
    margin: Annotated[int, Field(ge=0)] = 200
    """Characters that `cut` removes on either side of an overlap; shorter pieces that remain go, too."""

    @model_validator(mode="after")
    def _short_ones_are_shorter(self) -> "Config":
        if self.min_words > self.num_words or self.min_characters > self.num_characters:
            raise ValueError("min_words must be at most num_words, and min_characters at most num_characters")
        return self

    def input_hashes(self) -> dict[str, str]:
        if not self.against:
            raise UserError("decontaminate must be given evaluation files", got="none", do="set against to a list")
        return {f"decontaminate.against:{file}": sha256_of(file) for file in evaluation_files(self.against)}

    def build(self) -> "Decontaminate":
        return Decontaminate(self)


@dataclass(frozen=True)
class Decontaminate:
    config: Config

    def apply(self, document: Document) -> Document | Drop:
        if not self._index.runs:
            return document
        tokens = tokens_of(document.text)
        hits = list(self._index.find(tokens))
        if len({hit.run for hit in hits}) < self.config.min_runs:
            return document
        text = document.text.encode("utf-16-le", "surrogatepass")
        if self.config.action == "cut":
            spans = [(int(tokens.starts[hit.first]), int(tokens.ends[hit.last])) for hit in hits]
            pieces = _cut(text, spans, self.config.margin)
            if 0 < len(pieces) <= _MAX_PIECES:
                return document.with_text("\n\n".join(pieces), overlaps=len(spans))
        hit = hits[0]
        shown = text[2 * int(tokens.starts[hit.first]) : 2 * int(tokens.ends[hit.last])]
        said = " ".join(shown.decode("utf-16-le", "surrogatepass").split())
        said = said if len(said) <= _SHOWN_CHARACTERS else said[: _SHOWN_CHARACTERS - 3] + "..."
        return Drop("contaminated", f"{hit.place}: {said!r}")

    @cached_property
    def _index(self) -> "_Index":
        """Read with the first document: once in each worker."""
        return _Index(self.config)


class _Hit(NamedTuple):
    first: int
    """The first token of the run in the document."""
    last: int
    run: int
    """The run's hash."""
    place: str
    """File and row that it stands in."""


class _Runs(NamedTuple):
    """Runs of one length."""

    hashes: Hashes
    """[R] Sorted, all different."""
    texts: NDArray[np.uint32]
    """[R] The number of the text that each stands in first."""
    shift: np.uint64
    may_hold: NDArray[np.bool_]
    """High bits of a hash (what `shift` leaves) -> False where no hash has them. Most runs of a document end here."""


class _Index:
    """Hashes of all runs of the evaluation texts: 12 bytes each, and a filter of 16 to 32.

    Of a text that is shorter than a run its first `min_words` are looked for, and where they stand the rest is
    compared. So a document is looked through in two lengths for words and two for characters.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._files: list[str] = []
        self._places: list[tuple[int, str]] = []
        self._wholes: dict[int, list[tuple[bytes, int]]] = {}
        """Hash of a short text's beginning -> hashes and number of each text that begins so."""
        self._parts: dict[tuple[bool, int], list[tuple[Hashes, NDArray[np.uint32]]]] = {}
        fewest = min(2 * config.min_words - 1, config.min_characters)  # characters that so many tokens take at least
        for path in evaluation_files(config.against):
            self._files.append(path.name)
            batch, size = [], 0
            for place, text in texts_of(path, config.fields):
                if len(text) < fewest:
                    continue
                batch.append(text)
                size += len(text)
                self._places.append((len(self._files) - 1, place))
                if size > _BATCH_CHARACTERS:
                    self._add(batch)
                    batch, size = [], 0
            self._add(batch)
        self.runs = {key: _sorted(parts) for key, parts in sorted(self._parts.items())}
        """(whether it is the beginning of short texts, length) -> runs."""

    def _add(self, batch: list[str]) -> None:
        """The last texts of `_places`, at once: most are so short that one by one would take ten times as long."""
        if not batch:
            return
        tokens = tokens_of("\n".join(batch))
        ends = np.cumsum([len(text.encode("utf-16-le", "surrogatepass")) // 2 + 1 for text in batch])
        text_of = np.searchsorted(ends, tokens.starts, side="right")
        counts = np.bincount(text_of, minlength=len(batch))
        unspaced = 2 * np.bincount(text_of, weights=tokens.is_character, minlength=len(batch)) > counts
        first = np.cumsum(counts) - counts
        base, config = len(self._places) - len(batch), self._config
        for kind, length, least in (
            (False, config.num_words, config.min_words),
            (True, config.num_characters, config.min_characters),
        ):
            own = unspaced == kind
            for _, runs in runs_of(tokens.hashes, [length]):
                start, end = text_of[: len(runs)], text_of[length - 1 :]
                inside = np.flatnonzero((start == end) & own[start])
                inside = inside[_telling(tokens.hashes, inside, length)]
                self._keep(False, length, runs[inside], start[inside] + base)
            short = np.flatnonzero(own & (counts < length) & (counts >= least))
            for _, runs in runs_of(tokens.hashes, [least]):
                self._keep(True, least, runs[first[short]], short + base)
                for text, beginning in zip(short.tolist(), runs[first[short]].tolist(), strict=True):
                    whole = tokens.hashes[first[text] : first[text] + counts[text]].tobytes()
                    self._wholes.setdefault(beginning, []).append((whole, text + base))

    def _keep(self, is_beginning: bool, length: int, runs: Hashes, texts: NDArray[np.int64]) -> None:
        if len(runs):
            self._parts.setdefault((is_beginning, length), []).append((runs, texts.astype(np.uint32)))

    def find(self, tokens: Tokens) -> Iterator[_Hit]:
        """Every run of the document that stands in an evaluation text too."""
        for length, hashes in runs_of(tokens.hashes, sorted({length for _, length in self.runs})):
            for is_beginning in (False, True):
                runs = self.runs.get((is_beginning, length))
                if runs is not None:
                    yield from self._find(tokens, length, hashes, runs, is_beginning)

    def _find(self, tokens: Tokens, length: int, hashes: Hashes, runs: _Runs, is_beginning: bool) -> Iterator[_Hit]:
        places = np.flatnonzero(runs.may_hold[hashes >> runs.shift])
        if not len(places):
            return
        at = np.minimum(np.searchsorted(runs.hashes, hashes[places]), len(runs.hashes) - 1)
        equal = runs.hashes[at] == hashes[places]
        for first, entry in zip(places[equal].tolist(), at[equal].tolist(), strict=True):
            run = int(runs.hashes[entry])
            if is_beginning:
                yield from self._short(tokens, first, run)
            else:
                yield _Hit(first, first + length - 1, run, self._name(int(runs.texts[entry])))

    def _short(self, tokens: Tokens, first: int, beginning: int) -> Iterator[_Hit]:
        for whole, text in self._wholes[beginning]:
            last = first + len(whole) // 8 - 1
            if tokens.hashes[first : last + 1].tobytes() == whole:
                yield _Hit(first, last, beginning, self._name(text))
                return

    def _name(self, text: int) -> str:
        file, place = self._places[text]
        return f"{self._files[file]}, {place}"


def _telling(hashes: Hashes, places: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """Whether at least half of a run's tokens differ: rows of a table (`0 0 0 1 0`) are found in any other table."""
    if not len(places):
        return np.zeros(0, np.bool_)
    ordered = np.sort(sliding_window_view(hashes, length)[places], axis=1)
    num_different = 1 + np.count_nonzero(ordered[:, 1:] != ordered[:, :-1], axis=1)
    return 2 * num_different >= length


def _sorted(parts: list[tuple[Hashes, NDArray[np.uint32]]]) -> _Runs:
    hashes, first = np.unique(np.concatenate([runs for runs, _ in parts]), return_index=True)
    texts = np.concatenate([texts for _, texts in parts])[first]
    bits = max(10, (_FILTER_FACTOR * len(hashes) - 1).bit_length())
    shift = np.uint64(64 - bits)
    may_hold = np.zeros(1 << bits, np.bool_)
    may_hold[hashes >> shift] = True
    return _Runs(hashes, texts, shift, may_hold)


def _cut(text: bytes, spans: list[tuple[int, int]], margin: int) -> list[str]:
    """What remains of a text (UTF-16) without the spans and their margins, in pieces of at least `margin`."""
    pieces, at = [], 0
    for start, end in [*sorted(spans), (len(text) // 2 + margin, 0)]:
        piece = text[2 * at : 2 * max(start - margin, at)]
        # A margin may end inside a character of two units.
        kept = piece.decode("utf-16-le", "ignore").strip()
        if kept and len(kept) >= margin:
            pieces.append(kept)
        at = max(at, end + margin)
    return pieces
