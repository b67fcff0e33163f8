"""Text from tokens as they come: whole characters only, and in sum what the whole would decode to."""

from collections.abc import Callable, Sequence
from itertools import takewhile

_CONTEXT_TOKENS = 8
"""Tokens before the new ones that are decoded along: spaces between words depend on the neighbours."""
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_MAX_UNFINISHED = 3
"""A character has at most 4 bytes, so the last 3 that make no character yet may still become one."""


class StreamDecoder:
    """Feeds on tokens, gives text.

    A character of several bytes may be spread over several tokens; what is not whole yet is held back. Bytes that
    can become no character come as U+FFFD once that is sure. Tokenizers with byte fallback (unigram) decode a run of
    byte tokens as a whole, so nothing of one is given while its last character is not whole, and a wrong byte late in
    a run turns characters to U+FFFD that are out already: these stay.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt_ids: Sequence[int] = ()) -> None:
        """decode: ids to text. prompt_ids: what the tokens continue; its own text is not given."""
        self._decode = decode
        self._ids = self._context(list(prompt_ids))
        self._given = decode(self._ids)
        """Text of `_ids` that is out already."""

    def add(self, token: int) -> str:
        """The text that the token makes whole; empty while a character is not."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(_UNFINISHED) and not text.startswith(self._given):
            return ""  # a run of bytes that were characters, until the next one began
        new = self._new(_whole(text))
        if new:
            self._ids = self._context(self._ids)
            self._given = _whole(self._decode(self._ids))
        return new

    def end(self) -> str:
        """What was held back, when no more tokens come."""
        return self._new(self._decode(self._ids))

    def _context(self, ids: list[int]) -> list[int]:
        """The last ids, so many that they say alone what they say behind the others: no character is cut."""
        text = self._decode(ids)
        sizes = range(_CONTEXT_TOKENS, len(ids))
        return next((ids[-size:] for size in sizes if text.endswith(self._decode(ids[-size:]))), ids)

    def _new(self, text: str) -> str:
        if text.startswith(self._given):
            return text[len(self._given) :]
        num_same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._given, text, strict=False)))
        return text[num_same:]


def _whole(text: str) -> str:
    """The text without what may be the beginning of a character at its end."""
    num_unfinished = min(len(text) - len(text.rstrip(_UNFINISHED)), _MAX_UNFINISHED)
    return text[: len(text) - num_unfinished]
