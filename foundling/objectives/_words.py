"""Where words and sentences begin and end, from what a tokenizer's vocabulary looks like."""

# Shapes: V = vocabulary, T = tokens of a row.

import importlib
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

from foundling.core.errors import UserError
from foundling.tokenizers.base import Tokenizer

_SENTENCE_ENDS = frozenset(".!?…。！？．｡؟۔।")
_CLOSING = frozenset("”’»›)]}」』）】》")
_WORD_MARKS = {"wordpiece": "##", "unigram": "▁", "bpe": "Ġ"}
"""How tokens are spelled that go on a word (wordpiece) or begin one (the others)."""


def sentence_ends(tokenizer: Tokenizer) -> np.ndarray | None:
    """Which ids end a sentence, bool [V]; None where the vocabulary has no such token."""
    found = _ids_where(tokenizer, lambda text: text.rstrip("”’»\"')")[-1:] in _SENTENCE_ENDS)
    return found if found.any() else None


def closing_marks(tokenizer: Tokenizer) -> np.ndarray:
    """Which ids are nothing but closing brackets and quotation marks, bool [V]."""
    return _ids_where(tokenizer, lambda text: set(text) <= _CLOSING)


def _ids_where(tokenizer: Tokenizer, holds: Callable[[str], bool]) -> np.ndarray:
    found = np.zeros(tokenizer.vocab_size, dtype=bool)
    special = set(tokenizer.special_ids)
    for token_id in range(tokenizer.vocab_size):
        if token_id not in special:
            text = tokenizer.decode([token_id]).removeprefix("##").strip()
            found[token_id] = bool(text) and holds(text)
    return found


Starts = Callable[[np.ndarray], np.ndarray]
"""The ids of a row [T] to which of them begin a word, bool [T]."""


def word_starts(tokenizer: Tokenizer) -> Starts:
    """Where words begin; a mark of punctuation is a word of its own, as in BERT's whole-word masking. UserError for a
    tokenizer that does not tell."""
    mark = _WORD_MARKS.get(tokenizer.kind)
    names = [tokenizer.token_of(i) or "" for i in range(tokenizer.vocab_size)]
    marked = np.array([mark is not None and name.startswith(mark) for name in names])
    if tokenizer.kind == "wordpiece":  # whose punctuation is never glued to a word
        return lambda tokens_T: ~marked[tokens_T]
    apart = np.zeros_like(marked)
    if mark is not None:
        texts = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
        marked |= np.array([_stands_alone(text) for text in texts])
        apart = np.array([bool(text.strip(" ")) and all(map(_is_no_letter, text)) for text in texts])
    if not marked.any():
        raise UserError(
            "masking words or spans needs a tokenizer that marks them (wordpiece, unigram, or byte-level bpe)",
            got=f"a {tokenizer.kind} tokenizer without such marks",
            do="use unit: token, or train a tokenizer of kind wordpiece",
        )
    marked |= apart
    return lambda tokens_T: marked[tokens_T] | np.concatenate([[False], apart[tokens_T[:-1]]])


def _is_no_letter(character: str) -> bool:
    """Whether a character is white space, punctuation or a symbol; what stands for a piece of one is none."""
    return unicodedata.category(character)[0] in "PSZC" and character != "\ufffd"


_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""How Unicode's names of letters begin in scripts that write no spaces."""


def _stands_alone(text: str) -> bool:
    """Whether a token begins with a letter of a script that writes no spaces: it is a word without a mark."""
    return bool(text) and unicodedata.name(text[0], "").startswith(_UNSPACED)


class ChineseWords:
    """Words among tokens that are single Han characters, found by jieba."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        try:
            jieba = importlib.import_module("jieba")
        except ImportError as error:
            raise UserError(
                "objective.chinese_words needs the package jieba",
                got="none",
                do='pip install "foundling[chinese]", or set objective.chinese_words=false',
            ) from error
        jieba.setLogLevel("WARNING")
        self._cut: Callable[[str], Iterable[str]] = jieba.cut
        names = (tokenizer.token_of(i) or "" for i in range(tokenizer.vocab_size))
        self._character = [name.lstrip("▁").removeprefix("##") for name in names]
        self._is_han = np.array([len(c) == 1 and _is_han(c) for c in self._character])
        if not self._is_han.any():
            raise UserError(
                "objective.chinese_words needs tokens that are single Han characters",
                got=f"none in a {tokenizer.kind} tokenizer",
                do="use one of kind wordpiece, or set objective.chinese_words=false",
            )

    def join(self, tokens_T: np.ndarray, starts_T: np.ndarray) -> np.ndarray:
        """`starts_T`, less those in the middle of a Chinese word."""
        han, starts_T = self._is_han[tokens_T], starts_T.copy()
        edges = np.flatnonzero(np.diff(np.concatenate([[False], han, [False]])))
        for first, end in edges.reshape(-1, 2):
            starts_T[first:end] = False
            place = int(first)
            for word in self._cut("".join(self._character[i] for i in tokens_T[first:end])):
                starts_T[place] = True
                place += len(word)
        return starts_T


def _is_han(character: str) -> bool:
    return unicodedata.name(character, "").startswith("CJK UNIFIED IDEOGRAPH")
