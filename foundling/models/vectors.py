"""Initial embeddings from word vectors: text files as word2vec, GloVe and fastText write them, plain or gzipped.

A line is a word and its numbers, parted by single spaces; a first line of two whole numbers is word2vec's header
(words, dimensions). Words may hold spaces. The file is streamed: only rows that a vocabulary needs are kept.
"""

# Shapes: V = vocabulary, D = width of a vector.

import gzip
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foundling.core.config import Strict
from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.core.units import Count, human
from foundling.nn.init import rows_like
from foundling.tokenizers.base import Tokenizer

_CONTINUES = "##"
"""How a WordPiece vocabulary spells a piece that continues a word."""
_WORD_STARTS = ("Ġ", "▁")
"""How byte-level and unigram vocabularies spell the space before a word."""
_AFTER_MEAN = 3
"""Rank of a match that is worse than the mean of the words that a token is part of; smaller ones are better."""
_WORST = _AFTER_MEAN + 1
"""Rank of the last match that counts."""
_SHOWN = 8
"""Examples of missing tokens that are told."""


class Embeddings(Strict):
    """Where a model's initial embeddings come from."""

    path: str
    """A text file of word vectors (word2vec, GloVe, fastText; .gz too), as wide as the model."""
    scale: Literal["auto"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = "auto"
    """What the vectors are multiplied by; auto: what gives them the spread of the model's own initial embeddings."""
    pieces: Count = 50_000
    """A token that is no word of the file gets the mean of the words it is part of, among so many first words of the
    file (its most frequent); 0: none."""


@dataclass
class VectorFile:
    """A file of word vectors that is read once, from its first line to its last. What it tells is known afterwards."""

    path: Path
    dimensions: int
    """Of every vector."""
    num_words: int = 0
    """Lines that are words."""
    header_words: int | None = None
    """Words that the header promises."""

    @classmethod
    def open(cls, path: Path | str) -> "VectorFile":
        """Looks at the first lines of a file; UserError: it is missing, empty, or no text of word vectors."""
        path = Path(path)
        with _lines(path) as lines:
            first = next(lines, b"")
            second = next(lines, b"")
        parts = _parts(first)
        if not parts:
            raise UserError("a file of word vectors must hold a word and its numbers a line", got=f"{path}, empty")
        if len(parts) == 2 and all(part.isdigit() for part in parts):
            words, dimensions = int(parts[0]), int(parts[1])
            if dimensions < 1 or not second.strip():
                raise UserError(
                    f"{path}: line 1 must be followed by the words that it counts", got=first.decode().strip()
                )
            return cls(path, dimensions, header_words=words)
        numbers = 0
        while numbers + 1 < len(parts) and _is_number(parts[len(parts) - 1 - numbers]):
            numbers += 1
        if numbers == 0:
            raise UserError(
                f"{path}: line 1 must hold a word and its numbers, parted by spaces",
                got=_shown(first),
                do="give vectors as text (.txt, .vec, .gz), not in a program's own binary form",
            )
        return cls(path, numbers)

    def words(self) -> Iterator[tuple[int, str, bytes]]:
        """(line, word, its numbers as text) of every line; `numbers` reads the last. UserError: a line of other
        dimensions, with the line's number."""
        with _lines(self.path) as lines:
            first_word = 1
            if self.header_words is not None:
                next(lines)
                first_word = 2
            for number, raw in enumerate(lines, first_word):
                line = raw.rstrip(b" \t\r\n")
                if not line:
                    continue
                spaces = line.count(b" ")
                if spaces == self.dimensions:
                    word, values = line.split(b" ", 1)
                else:
                    word, values = self._odd(number, line)
                self.num_words += 1
                yield number, word.decode("utf-8", errors="replace"), values
        if self.header_words not in (None, self.num_words):
            logger.warning("%s: its first line promises %s words, it holds %s",
                           self.path, f"{self.header_words:,}", f"{self.num_words:,}")  # fmt: skip

    def _odd(self, number: int, line: bytes) -> tuple[bytes, bytes]:
        """The parts of a line whose spaces are not as many as the dimensions: the word may hold some itself."""
        parts = line.rsplit(b" ", self.dimensions)
        found = len(line.split()) - 1
        too_many = b" " in parts[0] and _is_number(parts[0].rsplit(b" ", 1)[-1])
        if len(parts) <= self.dimensions or too_many:
            raise UserError(
                f"{self.path}: line {number} must hold a word and {self.dimensions} numbers, as the lines before it",
                got=f"{found} numbers" if found > 0 else _shown(line),
            )
        return parts[0], b" ".join(parts[1:])

    def numbers(self, line: int, values: bytes) -> np.ndarray:
        """A word's numbers, float32 [D]; UserError: one is no finite number."""
        parts = values.split(b" ")
        try:
            found = np.array(parts, dtype=np.float64).astype(np.float32)  # beyond its range: infinite
        except ValueError:
            wrong = next(part for part in parts if not _is_number(part))
            raise UserError(f"{self.path}: line {line} must hold numbers", got=_shown(wrong)) from None
        if not np.isfinite(found).all():
            wrong = parts[int(np.flatnonzero(~np.isfinite(found))[0])]
            raise UserError(f"{self.path}: line {line} must hold finite numbers", got=_shown(wrong))
        return found


def _is_number(part: bytes) -> bool:
    try:
        float(part)
    except ValueError:
        return False
    return True


def _parts(line: bytes) -> list[bytes]:
    return line.rstrip(b" \t\r\n").split(b" ") if line.strip() else []


def _shown(text: bytes) -> str:
    found = text.rstrip(b"\r\n")[:60].decode("utf-8", errors="replace")
    return repr(found)


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[bytes]]:
    """Lines of a text file, unpacked where its first bytes are gzip's; every fault of the file is a UserError."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic.startswith(b"PK\x03\x04"):
            raise UserError("word vectors must be a text file, or one packed by gzip", got=f"{path}, a zip archive",
                            do="unpack it, and name the file within")  # fmt: skip
        packed = magic.startswith(b"\x1f\x8b")
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            yield _text_lines(path, cast(BinaryIO, file))
    except FileNotFoundError:
        raise UserError("a file of word vectors must exist", got=str(path)) from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} could not be read: {error}", do="fetch or unpack it again") from None


def _text_lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    for number, line in enumerate(file, 1):
        if b"\0" in line:
            raise UserError(f"{path}: line {number} must be text", got="binary data",
                            do="write the vectors as text (word2vec: -binary 0)")  # fmt: skip
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line  # a byte order mark


@dataclass
class Found:
    """What a file holds for a vocabulary."""

    rows_VD: np.ndarray
    """Vectors of the tokens that have one, float32; other rows are zero."""
    direct_V: np.ndarray
    """Which tokens are words of the file."""
    pieced_V: np.ndarray
    """Which have the mean of the words they are a piece of."""
    num_repeated: int = 0
    """Lines whose word an earlier line holds, of those looked for; the first counts."""


def find_vectors(file: VectorFile, tokenizer: Tokenizer, num_pieced_words: int) -> Found:
    """A vector for every token of a vocabulary that a file knows.

    The best of: the token as the vocabulary spells it (what our own word2vec writes); the word as it is written; in
    lower case; the mean of the words whose tokens it is one of, among the file's first `num_pieced_words`; of a piece,
    what the file has for its letters alone, then for these in lower case.
    """
    vocab_size = tokenizer.vocab_size
    words, pieces = words_of(tokenizer)
    spelled = _by_text({i: tokenizer.token_of(i) or "" for i in words | pieces})
    exact = _by_text(words)
    lower = _by_text({i: word.lower() for i, word in words.items()})
    letters = _by_text(pieces)
    lower_letters = _by_text({i: piece.lower() for i, piece in pieces.items()})
    tables = ((spelled, 0), (exact, 1), (lower, 2), (letters, _AFTER_MEAN), (lower_letters, _WORST))
    rows_VD = np.zeros((vocab_size, file.dimensions), dtype=np.float32)
    rank_V = np.full(vocab_size, _WORST + 1)
    sums_VD = np.zeros((vocab_size if num_pieced_words else 0, file.dimensions), dtype=np.float64)
    num_V = np.zeros(vocab_size, dtype=np.int64)
    spaced = any(_is_marked(tokenizer.token_of(i)) for i in range(vocab_size))
    special = set(tokenizer.special_ids)
    seen: set[str] = set()
    num_repeated = 0
    for order, (line, word, text) in enumerate(file.words()):
        targets = [(ids, rank) for table, rank in tables if (ids := table.get(word))]
        read_pieces = order < num_pieced_words
        if not targets and not read_pieces:
            continue
        if word in seen:
            num_repeated += 1
            continue
        seen.add(word)
        vector = file.numbers(line, text)
        for ids, rank in targets:
            for i in ids:
                if rank < rank_V[i]:
                    rows_VD[i], rank_V[i] = vector, rank
        if read_pieces:
            for i in set(tokenizer.encode(f" {word}" if spaced else word)) - special:
                sums_VD[i] += vector
                num_V[i] += 1
    averaged = (num_V > 0) & (rank_V >= _AFTER_MEAN)
    rows_VD[averaged] = sums_VD[averaged] / num_V[averaged, None] if averaged.any() else 0.0
    return Found(rows_VD, (rank_V <= _WORST) & ~averaged, averaged, num_repeated)


def words_of(tokenizer: Tokenizer) -> tuple[dict[int, str], dict[int, str]]:
    """(token id -> word, token id -> text of a piece that continues a word): the ordinary tokens of a vocabulary.

    A piece is what WordPiece marks as one, or, where the vocabulary marks the beginnings of words, letters that have
    case and no such mark: Chinese words stand unmarked.
    """
    special = set(tokenizer.special_ids)
    names = {i: name for i in range(tokenizer.vocab_size) if i not in special and (name := tokenizer.token_of(i))}
    marks = any(_is_marked(name) for name in names.values())
    words: dict[int, str] = {}
    pieces: dict[int, str] = {}
    for i, name in names.items():
        if name.startswith(_CONTINUES) and len(name) > len(_CONTINUES):
            pieces[i] = name.removeprefix(_CONTINUES)
            continue
        text = tokenizer.decode([i], skip_special=False).strip() or name
        unmarked = marks and not _is_marked(name) and text.lower() != text.upper()
        (pieces if unmarked else words)[i] = text
    return words, pieces


def _is_marked(name: str | None) -> bool:
    return name is not None and name.startswith(_WORD_STARTS)


def _by_text(texts: dict[int, str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, text in texts.items():
        found.setdefault(text, []).append(i)
    return found


def embed(
    wanted: Embeddings,
    tokenizer: Tokenizer,
    initial_VD: Tensor,
    generator: torch.Generator,
    token_counts: Callable[[], np.ndarray],
) -> Tensor:
    """The initial embedding [V, D], fp32: rows of a file where it has the token, the others drawn with the mean and
    the covariance of those. Tells in a line how much is covered.

    initial_VD: the embedding as the model begins without. token_counts: how often each token comes in the training
    text [V]. UserError: vectors of another width, none that the vocabulary knows, whatever is wrong with the file.
    """
    file = VectorFile.open(wanted.path)
    vocab_size, width = initial_VD.shape
    if file.dimensions != width:
        raise UserError(
            f"word vectors must be as wide as the model, {width}",
            got=f"{file.dimensions} numbers a word in {file.path}",
            do=f"set the model's width to {file.dimensions}, or give other vectors",
        )
    found = find_vectors(file, tokenizer, wanted.pieces)
    known_V = found.direct_V | found.pieced_V
    if not known_V.any():
        raise UserError(
            "word vectors must hold words of the tokenizer's vocabulary",
            got=f"none of {file.path}'s {file.num_words:,} words",
            do="give vectors of the text's language",
        )
    known = torch.from_numpy(found.rows_VD[known_V])
    spread = math.sqrt(known.double().square().mean().item())
    if spread == 0:
        raise UserError("word vectors must not all be zero", got=str(file.path))
    scale = wanted.scale if wanted.scale != "auto" else initial_VD.double().square().mean().sqrt().item() / spread
    known *= scale
    result_VD = initial_VD.clone()
    known_ids = torch.from_numpy(np.flatnonzero(known_V))
    result_VD[known_ids] = known
    missing_V = np.append(~known_V, np.ones(vocab_size - len(known_V), dtype=bool))
    missing_ids = torch.from_numpy(np.flatnonzero(missing_V))
    result_VD[missing_ids] = rows_like(known, len(missing_ids), generator)
    _tell(file, found, tokenizer, token_counts(), scale)
    return result_VD


def _tell(file: VectorFile, found: Found, tokenizer: Tokenizer, counts_V: np.ndarray, scale: float) -> None:
    """One line: what was found, for how much of the text, and what was not."""
    ordinary_V = np.ones(len(found.direct_V), dtype=bool)
    ordinary_V[tokenizer.special_ids] = False
    counts_V = np.where(ordinary_V, counts_V[: len(ordinary_V)], 0)
    known_V = (found.direct_V | found.pieced_V) & ordinary_V
    total = max(1, int(counts_V.sum()))
    missing = np.flatnonzero(ordinary_V & ~known_V)
    missing = missing[np.argsort(-counts_V[missing], kind="stable")]
    examples: Iterable[str] = (repr(tokenizer.token_of(int(i))) for i in missing[:_SHOWN])
    logger.info(
        "embeddings: %s (%s words, times %.3g): %s of %s tokens are its words, %s more have the mean of words that "
        "they are part of; together %.1f %% of the vocabulary, %.1f %% of the training tokens; %s%s",
        file.path, human(file.num_words), scale, f"{int((found.direct_V & ordinary_V).sum()):,}",
        f"{int(ordinary_V.sum()):,}", f"{int((found.pieced_V & ordinary_V).sum()):,}",
        100 * known_V.sum() / max(1, ordinary_V.sum()), 100 * counts_V[known_V].sum() / total,
        f"drawn like them: {', '.join(examples)}" + (" ..." if len(missing) > _SHOWN else "")
        if len(missing) else "none is missing",
        f"; {found.num_repeated:,} words came twice, the first counted" if found.num_repeated else "",
    )  # fmt: skip
