"""Documents that repeat themselves: lines in a loop, lines again and again, the same few words all over.

After Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), which bounds the share of repeated lines, paragraphs and
n-grams. Where we differ:

- What counts is the share of characters; a repeated paragraph is repeated lines, so paragraphs need no bound of their
  own. A wrapped or unbroken repetition is found by its n-grams.
- Gopher drops a text at a share of 0.2 in repeated lines. Songs, ballads and program text have more; but they do not
  *loop*. So there is one strict bound for lines that come back with nothing new in between, and a loose one for the
  others.
- Gopher bounds repeated n-grams for each n of 5 to 10. What repeats 10 words repeats 5, so there is one length, and one
  bound, above what leaflets and specifications reach (0.49 and 0.44).
- n-grams are of words, or of characters where no spaces stand between words. There two characters are one word, which a
  text may say as often as it likes: `表单` was 0.2 of a good page about forms. So pairs of words are four characters.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.scripts import ByScript, Script, script_of, within

REASONS = {
    "looping_lines": "a larger share of its characters than max_looping_lines stands in lines that come back at once",
    "repeated_lines": "a larger share of its characters than max_repeated_lines stands in lines that were there before",
    "top_ngram": "one pair, triple or quadruple of words makes up a larger share of it than max_top_ngram",
    "repeated_ngrams": "a larger share of it than max_repeated_ngrams lies in n-grams that were there before",
}

_LOOP_LINES = 8
"""A line loops if it stood at most so many lines before, and all lines since then had been there too."""
_FEWEST_LOOPING = 4
"""Looping lines below which nothing is said: three cheers are no fault."""
_FEWEST_TOP = 10
"""Occurrences below which no n-gram is too frequent: a short notice may name one name three times."""
_TOP_LENGTHS: dict[Script, tuple[int, ...]] = {"latin": (2, 3, 4), "cjk": (4, 6, 8), "other": (2, 3, 4)}
_NO_WORD = re.compile(r"[\W_]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that hashes modulo 2^64 keep every bit of the first word

Share = Annotated[ByScript, within(0, 1)]


class Config(PartConfig):
    """Bounds on repetition inside one document, as shares of its characters, white space not counted."""

    max_looping_lines: Share = ByScript(latin=0.2, cjk=0.2, other=0.2)
    """Largest share in lines that come back with nothing new in between, in [0, 1]."""
    max_repeated_lines: Share = ByScript(latin=0.5, cjk=0.5, other=0.5)
    """Largest share in lines that stood anywhere before, in [0, 1]. Songs reach 0.45, code 0.42."""
    max_top_ngram: Share = ByScript(latin=0.2, cjk=0.2, other=0.2)
    """Largest share of the most frequent sequence of 2, 3 or 4 words (4, 6 or 8 characters), in [0, 1], if it occurs at
    least ten times."""
    ngram_words: Annotated[ByScript, within(1, 100)] = ByScript(latin=5, cjk=10, other=5)
    """Length of the n-grams of max_repeated_ngrams, in words (characters)."""
    max_repeated_ngrams: Share = ByScript(latin=0.6, cjk=0.6, other=0.6)
    """Largest share in n-grams that stood anywhere before, in [0, 1]; a text that stands there twice has 0.5."""
    max_words_examined: Annotated[int, Field(ge=1000)] = 1_000_000
    """Words (characters) whose n-grams are counted, from the start of a document: a bound on memory, about 50 bytes
    each."""

    def build(self) -> "Repetition":
        return Repetition(self)


@dataclass(frozen=True)
class Repetition:
    config: Config

    def apply(self, document: Document) -> Document | Drop:
        script = script_of(document.text)
        return self._lines(document.text, script) or self._ngrams(document.text, script) or document

    def _lines(self, text: str, script: Script) -> Drop | None:
        lines = [line for line in map(str.strip, text.split("\n")) if line]
        if len(set(lines)) == len(lines):  # most texts
            return None
        num_characters = sum(map(len, lines))
        share, num_looping = _looping(lines)
        most = self.config.max_looping_lines.of(script)
        if most is not None and num_looping >= _FEWEST_LOOPING and share > most * num_characters:
            told = share / num_characters
            return Drop(
                "looping_lines", f"{num_looping} lines come back at once: {told:.2f} of its characters > {most}"
            )
        most = self.config.max_repeated_lines.of(script)
        repeated = num_characters - sum(map(len, set(lines)))
        if most is not None and len(lines) > _FEWEST_LOOPING and repeated > most * num_characters:
            count = Counter(lines).most_common(1)[0][1]
            told = repeated / num_characters
            return Drop("repeated_lines", f"repeated lines {told:.2f} > {most}; one stands there {count} times")
        return None

    def _ngrams(self, text: str, script: Script) -> Drop | None:
        ids_W, characters_W = _words(text, script, self.config.max_words_examined)
        num_characters = int(characters_W.sum())
        most = self.config.max_top_ngram.of(script)
        if most is not None and len(ids_W) >= _FEWEST_TOP:
            for length in _TOP_LENGTHS[script]:
                count, characters = _top(ids_W, characters_W, length)
                if count >= _FEWEST_TOP and characters > most * num_characters:
                    share = min(1.0, characters / num_characters)
                    what = "characters" if script == "cjk" else "words"
                    return Drop("top_ngram", f"{count} times the same {length} {what}: {share:.2f} of it > {most}")
                if count < _FEWEST_TOP:
                    break  # a longer one is no more frequent
        most, num_words = self.config.max_repeated_ngrams.of(script), self.config.ngram_words.of(script)
        if most is not None and num_words is not None and len(ids_W) > num_words:
            characters = _repeated(ids_W, characters_W, int(num_words))
            if characters > most * num_characters:
                share = characters / num_characters
                return Drop("repeated_ngrams", f"repeated {num_words:g}-grams {share:.2f} > {most}")
        return None


# Shapes: W words.


def _looping(lines: list[str]) -> tuple[int, int]:
    """Characters and number of lines that stood shortly before, with only lines in between that had been there too."""
    last: dict[str, int] = {}
    characters = number = 0
    newest = -1  # the last line that was new
    for place, line in enumerate(lines):
        before = last.get(line)
        if before is None:
            newest = place
        elif place - before <= _LOOP_LINES and before >= newest:
            characters += len(line)
            number += 1
        last[line] = place
    return characters, number


def _words(text: str, script: Script, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that are equal for equal words [W] and the words' lengths in characters [W]."""
    if script == "cjk":
        letters = _NO_WORD.sub("", text)[:most]  # old editions mark each lost character with a square
        codes = np.frombuffer(letters.encode("utf-32-le", "surrogatepass"), np.uint32)
        return codes.astype(np.uint64), np.ones(len(codes), np.int64)
    words = text.split()[:most]
    numbers: dict[str, int] = {}
    ids_W = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.uint64, len(words))
    return ids_W, np.fromiter(map(len, words), np.int64, len(words))


def _hashes(ids_W: np.ndarray, length: int) -> np.ndarray:
    """A number for each n-gram, at its first word; two different ones of a million share theirs with chance 10^-7."""
    num = len(ids_W) - length + 1
    hashes = ids_W[:num] + np.uint64(1)
    for place in range(1, length):
        hashes = hashes * _MULTIPLIER + ids_W[place : num + place]
    return hashes


def _top(ids_W: np.ndarray, characters_W: np.ndarray, length: int) -> tuple[int, int]:
    """How often the most frequent n-gram occurs, and the characters in all its occurrences together."""
    hashes = np.sort(_hashes(ids_W, length))
    edges = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1], [True]]))
    counts = np.diff(edges)
    best = int(counts.argmax())
    count = int(counts[best])
    if count < _FEWEST_TOP:
        return count, 0
    place = int((_hashes(ids_W, length) == hashes[edges[best]]).argmax())
    return count, count * int(characters_W[place : place + length].sum())


def _repeated(ids_W: np.ndarray, characters_W: np.ndarray, length: int) -> int:
    """Characters of the words that lie in an n-gram that occurred before."""
    hashes = _hashes(ids_W, length)
    order = hashes.argsort(kind="stable")
    ordered = hashes[order]
    again = order[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return 0
    starts = np.bincount(again, minlength=len(ids_W) + 1) - np.bincount(again + length, minlength=len(ids_W) + 1)
    return int(characters_W[np.cumsum(starts)[:-1] > 0].sum())
