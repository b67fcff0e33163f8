"""Texts framed as a family reads them: [CLS] A [SEP] B [SEP], or A [SEP] B [SEP] [CLS], or A eos B eos. Decoders that
were fine-tuned elsewhere read what their tokenizer makes of a text, and answer at its last token."""

# Shapes: T = tokens of a row.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundling.core.errors import UserError
from foundling.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Framed:
    """One or several texts as a row of tokens."""

    tokens: np.ndarray
    """Ids, int64 [T]."""
    segments: np.ndarray
    """Which part each token belongs to, 0, 1, ...; int64 [T]. Of an XLNet the [CLS] has a number of its own, 2."""
    starts: tuple[int, ...]
    """Where the first token of each part lies."""
    whole: int
    """The token whose hidden state stands for the row: the first, or the last of what reads in order."""


class Frame:
    """How rows of a family begin and end."""

    def __init__(self, family: str, tokenizer: Tokenizer, *, own: bool = True) -> None:
        """own: rows are framed as here; otherwise as the tokenizer frames a text. UserError: the tokenizer lacks the
        special tokens that the family's rows are made of."""
        self.family = family
        self._edges = None if own else _edges(tokenizer)
        if self._edges is not None:
            return
        self._sep = tokenizer.sep_id if tokenizer.sep_id is not None else tokenizer.eos_id
        self._cls = tokenizer.cls_id
        if self._sep is None or (self._cls is None and family != "gpt"):
            raise UserError(
                f"a {family} model's rows need the special tokens {'eos' if family == 'gpt' else 'cls and sep'}",
                got="a tokenizer without them",
                do="name them in tokenizer_config.json (cls_token, sep_token, eos_token)",
            )
        if family == "gpt" and tokenizer.eos_id is not None:
            self._sep = tokenizer.eos_id

    def num_special(self, num_parts: int) -> int:
        """Special tokens of a row of so many parts."""
        if self._edges is not None:
            return sum(map(len, self._edges))
        return num_parts + (self.family != "gpt")

    def __call__(self, parts: Sequence[Sequence[int] | np.ndarray]) -> Framed:
        """Parts that fit together; see `cut_to_fit`."""
        if self._edges is not None:
            return _between(*self._edges, parts)
        first = self.family not in ("gpt", "xlnet")
        pieces, segments, starts, length = [], [], [], int(first)
        if first:
            pieces.append(np.array([self._cls]))
            segments.append(np.zeros(1, np.int64))
        for number, part in enumerate(parts):
            starts.append(length)
            pieces += [np.asarray(part, dtype=np.int64), np.array([self._sep])]
            segments.append(np.full(len(part) + 1, number, np.int64))
            length += len(part) + 1
        if self.family == "xlnet":
            pieces.append(np.array([self._cls]))
            segments.append(np.full(1, 2, np.int64))
            length += 1
        tokens = np.concatenate(pieces).astype(np.int64)
        return Framed(tokens, np.concatenate(segments), tuple(starts), 0 if first else length - 1)


def _edges(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer writes before and behind a text."""
    bare, framed = tokenizer.encode("a"), tokenizer.encode("a", special=True)
    start = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
    return framed[:start], framed[start + len(bare) :]


def _between(before: list[int], after: list[int], parts: Sequence[Sequence[int] | np.ndarray]) -> Framed:
    """Parts one behind the other between special tokens; the last token stands for the row."""
    lengths = [len(part) for part in parts]
    starts = len(before) + np.cumsum([0, *lengths[:-1]])
    pieces = [np.asarray(piece, dtype=np.int64) for piece in (before, *parts, after)]
    tokens = np.concatenate(pieces)
    if not len(tokens):
        raise UserError("a text must have a token", got="none: the tokenizer drops all its characters")
    segments = np.repeat(np.arange(len(parts)), lengths)
    segments = np.concatenate([np.zeros(len(before), np.int64), segments, np.full(len(after), len(parts) - 1)])
    return Framed(tokens, segments.astype(np.int64), tuple(starts.tolist()), len(tokens) - 1)


def cut_to_fit(parts: Sequence[Sequence[int] | np.ndarray], room: int) -> list[np.ndarray]:
    """The parts with tokens taken from the end of the longest until `room` tokens are left in all."""
    lengths = [len(part) for part in parts]
    while sum(lengths) > room:
        longest = max(range(len(lengths)), key=lambda i: lengths[i])
        others = max((n for i, n in enumerate(lengths) if i != longest), default=0)
        lengths[longest] -= max(1, min(sum(lengths) - room, lengths[longest] - others))
    return [np.asarray(part[:length], dtype=np.int64) for part, length in zip(parts, lengths, strict=True)]
