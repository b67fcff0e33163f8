"""The stream of training texts: cut to bounded chunks, its characters counted on the way."""

import sys
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

from foundling.core.errors import UserError

_CHUNK = 1 << 16
"""Longest chunk in characters: a document of gigabytes must not be held by the trainer as one."""


class TextStream:
    """Iterates over texts in chunks that end before white space, counting characters.

    The rules that cut words never join a character to the white space after it, so chunks train like whole texts;
    only a run of 65,536 characters without white space is cut inside.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self._counts = np.zeros(sys.maxunicode + 1, dtype=np.int64)

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            for chunk in chunks(text):
                codes = np.frombuffer(chunk.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
                np.add.at(self._counts, *np.unique(codes, return_counts=True))
                yield chunk
        if not self._counts.any():
            raise UserError(
                "the text to train a tokenizer on must not be empty",
                got="no characters",
                do="if all documents were held back, give corpus.valid a path or a smaller fraction",
            )

    @property
    def characters(self) -> dict[str, int]:
        """How often each character came, in code order; complete once the stream has been read."""
        return {chr(code): int(self._counts[code]) for code in np.flatnonzero(self._counts)}


def chunks(text: str, size: int = _CHUNK) -> Iterator[str]:
    """Parts of at most `size` characters whose concatenation is the text, cut before white space where there is any."""
    start = 0
    while len(text) - start > size:
        end = start + size
        while end > start and not (text[end] in " \n" and not text[end - 1].isspace()):
            end -= 1
        if end == start:
            end = start + size
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def frequent(counts: dict[str, int], coverage: float) -> list[str]:
    """The fewest characters that make up `coverage` of all, and any ASCII; the most frequent first, ties by code."""
    total, reached, kept = sum(counts.values()), 0, []
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if reached < coverage * total or character.isascii():  # a digit that is rare here is not rare elsewhere
            kept.append(character)
        reached += count
    return kept


def visible(character: str) -> str:
    """A character for people: its name where it shows nothing."""
    return character if character.isprintable() else unicodedata.name(character, f"U+{ord(character):04X}")


def must_fill(asked: int, num_tokens: int) -> None:
    """UserError where the text yields fewer tokens than were asked for."""
    if num_tokens < asked:
        raise UserError(
            f"the text must be able to fill a vocabulary of {asked} tokens",
            got=f"text that yields {num_tokens}",
            do=f"set vocab_size (of a recipe: tokenizer.vocab_size) to {num_tokens} or less, or train on more text",
        )
