"""The words of a text, for tasks that answer word by word: where each begins and ends.

White space parts words. Letters and digits in a row are a word, with the marks on them; each other character
(punctuation, symbols, emoji with what is joined to it) is a word of its own, and so is each letter of the scripts that
put no spaces between words (Chinese, Japanese, Thai, ...).
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from unicodedata import category

from foundling.corpus.scripts import UNSPACED
from foundling.tasks.tags import Span

_ASCII_WORD = re.compile(r"[A-Za-z0-9]+|[\x21-\x7e]")
_UNSPACED = re.compile(f"[{UNSPACED}]")
_TOUCHING = re.compile(f"[{UNSPACED}\u3001-\u303f\uff01-\uff65]")
"""What no space is put beside, with its like: those letters and their punctuation."""
_JOINER = "\u200d"
_SPACES = "\u200b\ufeff"
"""Formatting characters that are as good as white space."""
_SKIN_TONES = range(0x1F3FB, 0x1F400)


def split_words(text: str) -> list[Span]:
    """The words of a text, in order."""
    if text.isascii():
        return [match.span() for match in _ASCII_WORD.finditer(text)]
    found: list[Span] = []
    start, before = 0, "space"
    for place, character in enumerate(text):
        kind = _kind(character)
        goes_on = kind == "mark" or (kind == before == "letter") or text[place - 1] == _JOINER
        if before != "space" and kind != "space" and goes_on:
            # A mark leaves the word open for what may follow what it stands on.
            before = before if kind == "mark" else kind
            continue
        if before != "space":
            found.append((start, place))
        start, before = place, kind
    return found if before == "space" else [*found, (start, len(text))]


@cache
def _kind(character: str) -> str:
    """letter: goes on with its like; mark: belongs to what it follows; space; single: a word of its own."""
    group = category(character)
    if character.isspace() or character in _SPACES or group == "Cc":
        return "space"
    if group[0] == "M" or group == "Cf" or ord(character) in _SKIN_TONES:
        return "mark"
    return "letter" if group[0] in "LN" and not _UNSPACED.match(character) else "single"


def join_words(words: Sequence[str]) -> tuple[str, list[Span]]:
    """A text of given words, with a space between two unless both are of scripts without; and where each word is."""
    pieces: list[str] = []
    spans: list[Span] = []
    at = 0
    for left, right in pairwise(["", *words]):
        if spans and not (_TOUCHING.match(left[-1:]) and _TOUCHING.match(right[:1])):
            pieces.append(" ")
            at += 1
        pieces.append(right)
        spans.append((at, at + len(right)))
        at += len(right)
    return "".join(pieces), spans
