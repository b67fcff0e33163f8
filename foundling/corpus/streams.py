"""Bytes of an input file in bounded pieces, decompressed; what is damaged is told, what came before it is used."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

COMPRESSIONS = (".gz", ".zst")
_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
# A zstd block of 128 KiB may take 4 bytes of input: 512 bytes give 16 MiB at most (8 KiB gave 80 MiB of zeros).
_ZSTD_INPUT_BYTES = 512
_BOM = b"\xef\xbb\xbf"
# German in Latin-1 has 1 to 3 % of bytes that are not UTF-8; GBK, UTF-16 and binary formats have most.
_BINARY_SHARE = 0.3


class Stream:
    """The decompressed bytes of one file. Iterate once.

    `consumed_bytes` counts bytes of the file itself; `damage` says, after the last piece, why the rest is missing.
    A byte order mark of UTF-8 at the start is left out. Raises OSError where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.consumed_bytes = 0
        self.damage: str | None = None
        self._pieces = self._read()
        self._head: bytes | None = None

    @property
    def head(self) -> bytes:
        """The first 64 KiB, or less where the file is shorter."""
        if self._head is None:
            head = bytearray()
            for piece in self._pieces:
                head += piece
                if len(head) >= _HEAD_BYTES:
                    break
            self._head = bytes(head).removeprefix(_BOM)
        return self._head

    def __iter__(self) -> Iterator[bytes]:
        if self.head:
            yield self.head
        yield from self._pieces

    def _read(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            suffix = self.path.suffix.lower()
            if suffix == ".gz":
                yield from self._gzip(file)
            elif suffix == ".zst":
                yield from self._zstd(file)
            else:
                yield from self._raw(file, _PIECE_BYTES)

    def _raw(self, file: BinaryIO, num_bytes: int) -> Iterator[bytes]:
        while piece := file.read(num_bytes):
            self.consumed_bytes += len(piece)
            yield piece

    def _gzip(self, file: BinaryIO) -> Iterator[bytes]:
        member, ended = zlib.decompressobj(wbits=31), True
        for raw in self._raw(file, _HEAD_BYTES):
            data = raw
            try:
                while data:
                    out = member.decompress(data, _PIECE_BYTES)
                    data, ended = member.unconsumed_tail, member.eof
                    if out:
                        yield out
                    if member.eof:  # a file may hold several members; zeros after the last one are padding
                        data = member.unused_data.lstrip(b"\0")
                        member = zlib.decompressobj(wbits=31)
            except zlib.error as error:
                self.damage = str(error)
                return
        if rest := member.flush():
            yield rest
        if not ended:
            self.damage = "it ends too early"

    def _zstd(self, file: BinaryIO) -> Iterator[bytes]:
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
        frame, ended, kept = decompressor.decompressobj(), True, bytearray()
        for raw in self._raw(file, _ZSTD_INPUT_BYTES):
            data = raw
            try:
                while data:
                    out, data, ended = frame.decompress(data), frame.unused_data, frame.eof
                    kept += out
                    if ended:
                        frame = decompressor.decompressobj()
            except zstandard.ZstdError as error:
                self.damage, ended = str(error), True
                break
            if len(kept) >= _HEAD_BYTES:
                yield bytes(kept)
                kept.clear()
        if kept:
            yield bytes(kept)
        if not ended:
            self.damage = "it ends too early"


def lines(stream: Stream, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """(line number from 1, line without its end); None stands for a line longer than `max_bytes`."""
    number, kept, too_long = 1, bytearray(), False
    for piece in stream:
        first, *rest = piece.split(b"\n")
        kept += first
        for part in rest:
            yield number, None if too_long or len(kept) > max_bytes else bytes(kept)
            number, kept, too_long = number + 1, bytearray(part), False
        if len(kept) > max_bytes:
            kept, too_long = bytearray(), True
    if kept or too_long:
        yield number, None if too_long else bytes(kept)


def decode(data: bytes) -> tuple[str, int]:
    """The text of UTF-8 bytes, and how many bytes were not UTF-8: each such run becomes one or more U+FFFD.

    The mark stays in the text so that nobody takes two torn halves for a word.
    """
    try:
        return data.decode(), 0
    except UnicodeDecodeError:
        num_good_bytes = len(data.decode(errors="ignore").encode())
        return data.decode(errors="replace"), len(data) - num_good_bytes


def binary_reason(head: bytes) -> str | None:
    """Why the bytes are no UTF-8 text at all, or None."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is UTF-16; convert it to UTF-8"
    if b"\0" in head:
        return "it is binary (it holds NUL bytes)"
    if decode(head)[1] > _BINARY_SHARE * len(head):
        return "it is binary, or text in another encoding; convert it to UTF-8"
    return None


def scrub(text: str) -> str:
    """The text with lone surrogates (which JSON can hold and UTF-8 cannot) as U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
