"""Ids of texts whose words are given: no token reaches from one word into the next, and each knows its word.

A text is encoded as a whole, so a word keeps the space before it (`Ġword`, `▁word`) and a text without spaces gets
none. Where two words touch, a mark stands between them that the pre-tokenizer takes out again as its last step.
"""

# Shapes: T = tokens of a text, C = characters of it.

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers

_MARK, _INSTEAD = "␞", "␟"
"""Stands between words that touch. No normalizer drops it: it is no control character and decomposes into nothing.
Where a text has it, its neighbour is read."""
_MARK_IN_BYTES = "âĲŀ"
"""The same in the alphabet of byte-level tokenizers."""


@dataclass(frozen=True)
class WordTokens:
    """A text's tokens, and where its words are among them."""

    ids: np.ndarray
    """int64 [T]."""
    words: np.ndarray
    """The word that each token is of; -1: of none, as white space; int64 [T], rising but for -1."""


class WordEncoder:
    """Encodes texts along their words."""

    def __init__(self, plan: str) -> None:
        """plan: `tokenizer.json` as text."""
        parts = json.loads(plan)
        mark = _MARK_IN_BYTES if '"ByteLevel"' in json.dumps(parts["pre_tokenizer"]) else _MARK
        cut = {"type": "Split", "pattern": {"String": mark}, "behavior": "Removed", "invert": False}
        before = [] if parts["pre_tokenizer"] is None else [parts["pre_tokenizer"]]
        parts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*before, cut]}
        self._raw = tokenizers.Tokenizer.from_str(json.dumps(parts))
        self._raw.encode_special_tokens = True

    def __call__(self, texts: Sequence[str], words: Sequence[Sequence[tuple[int, int]]]) -> list[WordTokens]:
        """words: of each text, first character and character after the last, in order, apart from each other."""
        marked = [_marked(text, spans) for text, spans in zip(texts, words, strict=True)]
        encodings = self._raw.encode_batch([text for text, _ in marked], add_special_tokens=False)
        return [_tokens(encoding, owner_C) for encoding, (_, owner_C) in zip(encodings, marked, strict=True)]


def _marked(text: str, spans: Sequence[tuple[int, int]]) -> tuple[str, np.ndarray]:
    """The text with marks between words that touch, and the word of each of its characters, -1 of those between."""
    text = text.replace(_MARK, _INSTEAD)
    pieces, owners, lengths, at = [], [], [], 0
    for word, (start, end) in enumerate(spans):
        gap = text[at:start]
        if word and not any(map(str.isspace, gap)):
            gap += _MARK
        pieces += [gap, text[start:end]]
        owners += [-1, word]
        lengths += [len(gap), end - start]
        at = end
    pieces.append(text[at:])
    return "".join(pieces), np.repeat([*owners, -1], [*lengths, len(text) - at])


def _tokens(encoding: tokenizers.Encoding, owner_C: np.ndarray) -> WordTokens:
    """A token is of the first word that a character of it is of."""
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    places_C = np.where(owner_C >= 0, np.arange(len(owner_C)), len(owner_C))
    next_C = np.append(np.minimum.accumulate(places_C[::-1])[::-1], len(owner_C))
    first_T = next_C[offsets[:, 0]]
    words_T = np.append(owner_C, -1)[np.where(first_T < offsets[:, 1], first_T, -1)]
    return WordTokens(np.array(encoding.ids, dtype=np.int64), words_T)
