r"""Fast batch encoding: a text is cut where its pre-tokenizer always cuts, and each distinct piece is encoded once.

Words repeat. The rules of the known pre-tokenizers never join a character to the white space after it, so a text is
the concatenation of its pieces, and so are its ids. A cache from piece to ids then replaces most of the work
(English, one core: 12 MB/s with the cache, 5.3 MB/s without). Unknown pre-tokenizers are encoded as they are.
"""

import json
import re
from itertools import chain

import numpy as np
import tokenizers

from foundling.tokenizers._rules import CHARACTER_PATTERN, NUMBERS_AND_LINES, QWEN2_PATTERN

_BEFORE_SPACE = re.compile(r"\s*\S*")
"""White space belongs to the word after it: GPT-2's byte-level rule, single characters."""

_AFTER_NEWLINES = re.compile(r"[^\S\r\n]*\S*(?:\s*[\r\n]+)?")
"""Line ends may belong to the punctuation before them (Qwen2's rule): they stay with the word they follow."""

_AT_SPACE = re.compile(r" [^ ]*|[^ ]+")
"""Metaspace: a piece begins at each space, other white space is a character like any other."""

_WORDS = re.compile(r"(?:\S|[\x0b\x0c\x85])+")
"""BERT's rule: white space carries no token; but its normalizer removes these three, and joins what they part."""

_SEPARATORS = ("\x1c", "\x1d", "\x1e", "\x1f")
"""White space to Python but not to Unicode, so not to the tokenizers either: a text with one is not cut."""

_MAX_CACHED = 400_000
"""Pieces kept; about 150 bytes each, so at most some 60 MB in each process."""

_MAX_PIECE = 64
"""Characters of the longest piece that is kept: clauses of Chinese or base64 rarely come twice."""


def cutting_rule(raw: tokenizers.Tokenizer) -> re.Pattern[str] | None:
    """The pattern whose matches can be encoded one by one, or None where that is not known to be exact."""
    plan = json.loads(raw.to_str())
    if any(not token["special"] for token in plan["added_tokens"]) or plan["model"].get("dropout"):
        return None  # a plain added token may span white space; dropout makes ids random
    normalizer = (plan["normalizer"] or {}).get("type")
    pre = plan["pre_tokenizer"] or {}
    steps = pre["pretokenizers"] if pre.get("type") == "Sequence" else [pre]
    types = [step.get("type") for step in steps]
    if types == ["BertPreTokenizer"] and normalizer in ("BertNormalizer", None):
        return _WORDS
    if normalizer not in (None, "NFC") or any(step.get("add_prefix_space") for step in steps):
        return None
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    if types == ["ByteLevel"] and steps[0].get("use_regex"):
        return _BEFORE_SPACE
    if types == ["Split", "ByteLevel"] and patterns == [QWEN2_PATTERN] and not steps[1].get("use_regex"):
        return _AFTER_NEWLINES
    if types == ["Split"] and patterns == [CHARACTER_PATTERN]:
        return _BEFORE_SPACE
    if types[-1] == "Metaspace" and steps[-1].get("prepend_scheme") == "never" and steps[-1].get("split"):
        return _AT_SPACE if types[:-1] in ([], ["Split"]) and patterns in ([], [NUMBERS_AND_LINES]) else None
    return None


class PieceEncoder:
    """Encodes batches of texts. Not safe for threads that share it.

    raw: a tokenizer that reads special tokens in a text as text. dtype: of the ids.
    """

    def __init__(self, raw: tokenizers.Tokenizer, dtype: np.dtype) -> None:
        self._raw = raw
        self._dtype = dtype
        self._rule = cutting_rule(raw)
        self._ids: dict[str, bytes] = {}

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """The ids of each text, without added special tokens."""
        if self._rule is None:
            return self._whole(texts)
        results: list[np.ndarray | None] = [None] * len(texts)
        cut = [i for i, text in enumerate(texts) if not any(mark in text for mark in _SEPARATORS)]
        pieces = [self._rule.findall(texts[i]) for i in cut]
        passing = self._learn(pieces)
        for i, parts in zip(cut, pieces, strict=True):
            results[i] = np.frombuffer(b"".join(map(self._ids.__getitem__, parts)), dtype=self._dtype)
        for piece in passing:
            del self._ids[piece]
        rest = [i for i, ids in enumerate(results) if ids is None]
        for i, ids in zip(rest, self._whole([texts[i] for i in rest]), strict=True):
            results[i] = ids
        return [ids for ids in results if ids is not None]

    def _whole(self, texts: list[str]) -> list[np.ndarray]:
        encodings = self._raw.encode_batch_fast(texts, add_special_tokens=False) if texts else []
        return [np.array(encoding.ids, dtype=self._dtype) for encoding in encodings]

    def _learn(self, pieces: list[list[str]]) -> list[str]:
        """Puts every piece in the cache; returns those that are too long to keep after this batch."""
        wanted = set(chain.from_iterable(pieces))
        fresh = [piece for piece in wanted if piece not in self._ids]
        if len(self._ids) + len(fresh) > _MAX_CACHED:
            self._ids.clear()
            fresh = list(wanted)
        # Sub-batches: an Encoding is some 100 bytes a token, a batch of long documents would hold them all at once.
        for start in range(0, len(fresh), 4096):
            some = fresh[start : start + 4096]
            for piece, ids in zip(some, self._whole(some), strict=True):
                self._ids[piece] = ids.tobytes()
        return [piece for piece in fresh if len(piece) > _MAX_PIECE]
