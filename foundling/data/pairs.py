"""Rows that stay within documents: pieces of one, and pairs of pieces whose order or origin is in question.

Each epoch passes through all pieces once, in an order of its own: documents are cut side by side into pieces that fill
a row, and rows of one piece read the whole text. Of pairs, false ones read another document's text instead of their
second segment, short ones and those of whole sentences leave some of their piece out. Only a document's last piece is
shorter, and it begins a little earlier than where the one before ends, so that row lengths come in steps of 16 tokens
and many rows of a step have the same length (which attention likes).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from foundling.core.errors import UserError
from foundling.core.log import warn_once
from foundling.data.order import Order, Weights
from foundling.data.rows import Row, Stream

LENGTH_STEP = 16
"""Row lengths are multiples of this, tokens, where the text allows it: 8 lengths in rows of up to 128."""
_LOOK_AT_DOCUMENTS = 256
"""Documents whose sentences are looked for before a run begins."""
_LOOK_AT_TOKENS = 1024
"""Tokens of each that are looked at; also how far the beginning of a sentence is looked for."""
_TRIES = 8
"""Other documents that are drawn until one is as long as the segment that it stands for."""


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
        lies = ((piece.start, piece.length),)
        return Row(sample, piece.source, piece.start, tokens, key=chance(self._seed, sample), lies=lies)


Twist = Callable[[np.ndarray, np.ndarray, Callable[[int], np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""The two segments of a true pair, and a function that reads at most so many tokens of another document, to the two
segments of a false pair."""


class Pairs:
    """Rows of two segments each: [CLS] A [SEP] B [SEP], half of them as they stand in the text (label 0), half twisted
    (label 1). Of two samples 2j and 2j + 1 exactly one is twisted, so any even number of them is balanced.

    A piece is cut in two at a sentence's end (chosen among all that it holds), as the tokenizer's punctuation tells; a
    piece of one sentence is cut anywhere. Neither where segments begin and end nor how long they are tells the label:
    another document's segment begins and is as long as the true one would, and segments that change places are whole
    sentences, where the piece holds three or begins or ends its document.
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
        whole_sentences: bool,
        short_rate: float,
        shortest: int,
    ) -> None:
        """what: the objective's name, for errors. other_documents: whether the twist reads them.
        whole_sentences: whether segments must not begin or end within one. short_rate: share of
        rows that are cut to a random length from `shortest` up, so that the model sees short ones too."""
        self.row_length = row_length
        self._seed, self._marks, self._twist = seed, marks, twist
        self._short_rate, self._shortest = short_rate, min(shortest, row_length)
        self._whole_sentences = whole_sentences
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
            warn_once(
                f"objective.next: {what} cuts segments anywhere, within sentences too: the tokenizer has no token that "
                "ends a sentence"
            )
            return
        looked = several = 0
        for stream, lengths, found in zip(self._pieces.streams, self._pieces.lengths, self._readable, strict=True):
            for document in found[:: max(1, len(found) // _LOOK_AT_DOCUMENTS)]:
                start, length = int(stream.document_starts[document]), int(lengths[document])
                looked += 1
                several += len(self._cuts(stream.read(start, min(length, _LOOK_AT_TOKENS)))) > 0
        if several:
            if several < looked / 2:
                warn_once(
                    f"objective.next: {what} asks whether one sentence follows another, and {looked - several:,} of "
                    f"{looked:,} documents looked at have one alone, which is cut in two; join lines that belong "
                    "together into one document"
                )
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
        low, text, cuts = self._whole(piece, text, self._cuts(text))
        cut = int(cuts[rng.integers(len(cuts))]) if len(cuts) else int(rng.integers(1, len(text)))
        first, second = text[:cut], text[cut:]
        label = (chance(self._seed, -1 - sample // 2) + sample) & 1
        lies = [(piece.start + low, len(text))]
        if label:

            def another(most: int) -> np.ndarray:
                start, length = self._another(piece, most, rng, at_sentence=len(cuts) > 0)
                lies[:] = [(piece.start + low, cut), (start, length)]
                return self._pieces.streams[piece.source].read(start, length)

            first, second = self._twist(first, second, another)
            if len(first) + len(second) < len(text):  # the other document was too short
                behind = (3 + len(first) + len(second)) % LENGTH_STEP
                first = first[behind if behind < len(first) else 0 :]
        cls_id, sep_id = self._marks.cls_id, self._marks.sep_id
        tokens = np.concatenate([[cls_id], first, [sep_id], second, [sep_id]])
        segments = np.repeat([0, 1], [len(first) + 2, len(second) + 1])
        return Row(sample, piece.source, piece.start + low, tokens, segments, label, key, tuple(lies))

    def _whole(self, piece: Piece, text: np.ndarray, cuts: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        """The whole sentences of a piece, if they are asked for and there are two: their place in it, their tokens, and
        where one begins within them."""
        if not self._whole_sentences or not len(cuts):
            return 0, text, cuts
        begin = int(self._pieces.streams[piece.source].document_starts[piece.document])
        end = begin + int(self._pieces.lengths[piece.source][piece.document])
        low = 0 if piece.start == begin else int(cuts[0])
        # A document that stops within a sentence (a title) would tell, too. Nothing is behind [CLS], so it is no end.
        ends = self._cuts(np.append(text, self._marks.cls_id))[-1] == len(text)
        high = len(text) if ends and piece.start + len(text) == end else int(cuts[-1])
        inner = cuts[(cuts > low) & (cuts < high)]
        return (low, text[low:high], inner - low) if len(inner) else (0, text, cuts)

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

    def _another(self, piece: Piece, most: int, rng: np.random.Generator, *, at_sentence: bool) -> tuple[int, int]:
        """Where so many tokens of another document of the same source lie, fewer where those drawn are shorter: place
        of the first, and how many; from the beginning of a sentence, as a true segment begins, or from anywhere."""
        readable, lengths = self._readable[piece.source], self._pieces.lengths[piece.source]
        number = int(np.searchsorted(readable, piece.document))
        for _ in range(_TRIES):
            step = int(rng.integers(1, len(readable)))
            document = int(readable[(number + step) % len(readable)])  # any but this one
            length = int(lengths[document])
            if length >= most:
                break
        stream, last = self._pieces.streams[piece.source], max(0, length - most)
        start, first = int(stream.document_starts[document]), int(rng.integers(0, last + 1))
        if at_sentence and first:
            first = self._sentence_near(stream, start, first, last)
        return start + first, min(most, length - first)

    def _sentence_near(self, stream: DocumentStream, start: int, first: int, last: int) -> int:
        """Where a sentence of the document begins: the next place up to the last one, else the one before."""
        ahead = self._cuts(stream.read(start + first - 1, min(_LOOK_AT_TOKENS, last - first + 2)))
        if len(ahead):
            return first - 1 + int(ahead[0])
        low = max(0, first - _LOOK_AT_TOKENS)
        behind = self._cuts(stream.read(start + low, first - low + 1))
        return low + int(behind[-1]) if len(behind) else 0


def _must_hold(row_length: int, least: int) -> None:
    if row_length < least:
        raise UserError(f"train.sequence_length must be at least {least}, special tokens included", got=row_length)
