"""Rows that stay within documents: pieces of one, and pairs of pieces whose order or origin is in question.

Each epoch passes through the whole text once, in an order of its own: documents are cut side by side into pieces that
fill a row. Only a document's last piece is shorter, and it begins a little earlier than where the one before ends, so
that row lengths come in steps of 16 tokens and many rows of a step have the same length (which attention likes).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from foundling.core.errors import UserError
from foundling.data.order import Order, Weights
from foundling.data.rows import Row, Stream

LENGTH_STEP = 16
"""Row lengths are multiples of this, tokens, where the text allows it: 8 lengths in rows of up to 128."""
_LOOK_AT_DOCUMENTS = 256
"""Documents whose sentences are looked for before a run begins."""
_LOOK_AT_TOKENS = 1024
"""Tokens of each that are looked at."""


class DocumentStream(Stream, Protocol):
    """A stream that knows where its documents are."""

    @property
    def num_documents(self) -> int: ...

    @property
    def document_starts(self) -> np.ndarray: ...

    @property
    def document_lengths(self) -> np.ndarray:
        """Tokens of each document, its end token included."""
        ...


@dataclass(frozen=True)
class Marks:
    """The ids that rows are framed with and cut at."""

    cls_id: int
    sep_id: int
    end_ids: frozenset[int]
    """What may stand behind each document of a stream; it is no part of a row."""
    sentence_end_V: np.ndarray | None = None
    """Which ids end a sentence, bool [V]; None: the tokenizer has none, and segments are cut anywhere."""
    closing_V: np.ndarray | None = None
    """Which ids close a bracket or quotation that belongs to the sentence before, bool [V]."""


def chance(seed: int, sample: int) -> int:
    """64 bits that depend on the seed and the sample's number alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {sample}".encode(), digest_size=8).digest(), "little")


def generator(key: int, purpose: int) -> np.random.Generator:
    """Random numbers of one sample. key: from `chance`. purpose: another number, another stream of numbers."""
    return np.random.Generator(np.random.Philox(key=key | purpose << 64))


@dataclass(frozen=True)
class Piece:
    source: int
    document: int
    start: int
    """Place of its first token in the stream."""
    length: int


class Pieces:
    """`pieces[i]` is the i-th piece of an endless order over all documents of several streams, mixed by weight."""

    def __init__(
        self,
        streams: Sequence[DocumentStream],
        weights: Weights | None,
        *,
        room: int,
        extra: int,
        smallest: int,
        seed: int,
        end_ids: frozenset[int],
    ) -> None:
        """room: tokens of a piece at most. extra: what the row holds beside. smallest: documents of fewer tokens are
        passed over. weights: of the streams, for `Order`; None: as many samples of each as it has pieces."""
        self.room, self._extra = room, extra
        self.streams = list(streams)
        self.lengths = [_text_lengths(stream, end_ids) for stream in streams]
        self._ends = [np.cumsum(np.where(n >= smallest, -(-n // room), 0)) for n in self.lengths]
        self.per_stream = [int(ends[-1]) if len(ends) else 0 for ends in self._ends]
        for number, pieces in enumerate(self.per_stream):
            if pieces == 0:
                raise UserError(
                    f"each training source must hold a document of at least {smallest} tokens",
                    got=f"{self.streams[number].num_tokens} tokens in source {number}",
                )
        self._order = Order(self.per_stream, self.per_stream if weights is None else weights, seed)

    def __getitem__(self, sample: int) -> Piece:
        source, number = self._order[sample]
        ends, lengths = self._ends[source], self.lengths[source]
        document = int(np.searchsorted(ends, number, side="right"))
        within = number - (int(ends[document - 1]) if document else 0)
        begin, whole = within * self.room, int(lengths[document])
        length = min(self.room, whole - begin)
        if length < self.room:  # the last one reaches back
            rounded = -(-(length + self._extra) // LENGTH_STEP) * LENGTH_STEP - self._extra
            length = min(rounded, self.room, whole)
        end = min(whole, begin + self.room)
        start = int(self.streams[source].document_starts[document]) + end - length
        return Piece(source, document, start, length)


def _text_lengths(stream: DocumentStream, end_ids: frozenset[int]) -> np.ndarray:
    """Tokens of each document without the end token, which all documents of a stream have or none has."""
    lengths = np.asarray(stream.document_lengths)
    if not len(lengths) or not int(lengths[0]):
        return lengths
    last = int(stream.document_starts[0]) + int(lengths[0]) - 1
    return lengths - 1 if int(stream.read(last, 1)[0]) in end_ids else lengths


class Segments:
    """Rows of one piece each: [CLS] text [SEP]."""

    def __init__(
        self,
        streams: Sequence[DocumentStream],
        weights: Weights | None,
        *,
        row_length: int,
        seed: int,
        marks: Marks,
    ) -> None:
        self.row_length = row_length
        self._seed, self._marks = seed, marks
        _must_hold(row_length, 3)
        self._pieces = Pieces(
            streams, weights, room=row_length - 2, extra=2, smallest=1, seed=seed, end_ids=marks.end_ids
        )
        self.rows_per_stream = self._pieces.per_stream

    @property
    def num_rows(self) -> int:
        return sum(self.rows_per_stream)

    def __getitem__(self, sample: int) -> Row:
        piece = self._pieces[sample]
        text = self._pieces.streams[piece.source].read(piece.start, piece.length)
        tokens = np.concatenate([[self._marks.cls_id], text, [self._marks.sep_id]])
        return Row(sample, piece.source, piece.start, tokens, key=chance(self._seed, sample))


Twist = Callable[[np.ndarray, np.ndarray, Callable[[int], np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""The two segments of a true pair, and a function that reads at most so many tokens of another document, to the two
segments of a false pair."""


class Pairs:
    """Rows of two segments each: [CLS] A [SEP] B [SEP], half of them as they stand in the text (label 0), half twisted
    (label 1). Of two samples 2j and 2j + 1 exactly one is twisted, so any even number of them is balanced.

    A piece is cut in two at a sentence's end (chosen among all that it holds), as the tokenizer's punctuation tells; a
    piece of one sentence is cut anywhere.
    """

    def __init__(
        self,
        streams: Sequence[DocumentStream],
        weights: Weights | None,
        *,
        row_length: int,
        seed: int,
        marks: Marks,
        twist: Twist,
        what: str,
        other_documents: bool,
        short_rate: float,
        shortest: int,
    ) -> None:
        """what: the objective's name, for errors. other_documents: whether the twist reads them. short_rate: share of
        rows that are cut to a random length from `shortest` up, so that the model sees short ones too."""
        self.row_length = row_length
        self._seed, self._marks, self._twist = seed, marks, twist
        self._short_rate, self._shortest = short_rate, min(shortest, row_length)
        _must_hold(row_length, 5)
        self._pieces = Pieces(
            streams, weights, room=row_length - 3, extra=3, smallest=2, seed=seed, end_ids=marks.end_ids
        )
        self.rows_per_stream = self._pieces.per_stream
        self._readable = [np.flatnonzero(lengths > 0) for lengths in self._pieces.lengths]
        if other_documents and (few := min(map(len, self._readable))) < 2:
            raise UserError(
                f"objective.next: {what} needs at least two documents in each source, to draw segments from another",
                got=few,
                do="split the text into its documents, or use {kind: sop}, or leave objective.next out",
            )
        self._must_have_sentences(what)

    def _must_have_sentences(self, what: str) -> None:
        if self._marks.sentence_end_V is None:
            return
        looked = 0
        for stream, lengths, found in zip(self._pieces.streams, self._pieces.lengths, self._readable, strict=True):
            for document in found[:: max(1, len(found) // _LOOK_AT_DOCUMENTS)]:
                start, length = int(stream.document_starts[document]), int(lengths[document])
                looked += 1
                if len(self._cuts(stream.read(start, min(length, _LOOK_AT_TOKENS)))):
                    return
        raise UserError(
            f"objective.next: {what} needs documents of several sentences, to ask whether one follows another",
            got=f"one sentence in each of {looked} documents looked at",
            do="join lines that belong together into one document, or leave objective.next out",
        )

    @property
    def num_rows(self) -> int:
        return sum(self.rows_per_stream)

    def __getitem__(self, sample: int) -> Row:
        piece, key = self._pieces[sample], chance(self._seed, sample)
        rng = generator(key, 0)
        length = piece.length
        if rng.random() < self._short_rate:
            least = -(-self._shortest // LENGTH_STEP)
            steps = rng.integers(least, max(least, self.row_length // LENGTH_STEP) + 1)
            length = min(length, max(2, int(steps) * LENGTH_STEP - 3))
        text = self._pieces.streams[piece.source].read(piece.start, length)
        cuts = self._cuts(text)
        cut = int(rng.choice(cuts)) if len(cuts) else int(rng.integers(1, length))
        first, second = text[:cut], text[cut:]
        label = (chance(self._seed, -1 - sample // 2) + sample) & 1
        if label:
            first, second = self._twist(first, second, lambda most: self._another(piece, most, rng))
        cls_id, sep_id = self._marks.cls_id, self._marks.sep_id
        tokens = np.concatenate([[cls_id], first, [sep_id], second, [sep_id]])
        segments = np.repeat([0, 1], [len(first) + 2, len(second) + 1])
        return Row(sample, piece.source, piece.start, tokens, segments, label, key)

    def _cuts(self, text: np.ndarray) -> np.ndarray:
        """Where a sentence begins within the text, the first one left out."""
        ends_V, closing_V = self._marks.sentence_end_V, self._marks.closing_V
        if ends_V is None or len(text) < 2:
            return np.empty(0, np.int64)
        ends = ends_V[text]
        if closing_V is not None:
            closing = closing_V[text]
            ends[1:] |= closing[1:] & ends[:-1]
            ends[:-1] &= ~closing[1:]
        return np.flatnonzero(ends[:-1] & ~ends[1:]) + 1

    def _another(self, piece: Piece, most: int, rng: np.random.Generator) -> np.ndarray:
        """At most so many tokens of another document of the same source, from the beginning of a sentence."""
        readable = self._readable[piece.source]
        number = int(np.searchsorted(readable, piece.document))
        step = int(rng.integers(1, len(readable)))
        document = int(readable[(number + step) % len(readable)])  # any but this one
        stream, length = self._pieces.streams[piece.source], int(self._pieces.lengths[piece.source][document])
        first = int(rng.integers(0, max(0, length - most) + 1))
        start = int(stream.document_starts[document])
        if first:
            cuts = self._cuts(stream.read(start + first - 1, min(length - first + 1, most)))
            first += int(cuts[0]) - 1 if len(cuts) else 0
        return stream.read(start + first, min(most, length - first))


def _must_hold(row_length: int, least: int) -> None:
    if row_length < least:
        raise UserError(f"train.sequence_length must be at least {least}, special tokens included", got=row_length)
