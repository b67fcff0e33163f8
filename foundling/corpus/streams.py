"""Bytes of an input file in bounded pieces, decompressed; what is damaged is told, and all that can be read is used.

Which compression it is, the first bytes say and not the name. Behind a damaged place the next member (frame, stream)
of the archive is looked for: files of many members, such as WARCs, lose one of them and not the rest.
"""

import bz2
import codecs
import lzma
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol

import zstandard

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
# A zstd block of 128 KiB may take 4 bytes of input: 512 bytes give 16 MiB at most (8 KiB gave 80 MiB of zeros).
_ZSTD_INPUT_BYTES = 512
# xz -9 needs 65 MiB to decompress; more is no file that anyone means to read.
_XZ_MEMORY_BYTES = 256 << 20
# What follows a damaged place counts as a member once this much came out of it: any 4 bytes may look like a beginning.
_TRIAL_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"


class Source(Protocol):
    """Where bytes come from: a `Path`, or a file elsewhere that can be opened like one."""

    @property
    def name(self) -> str: ...

    def open(self, mode: Literal["rb"]) -> Any: ...


class Stream:
    """The decompressed bytes of one file. Iterate once.

    `consumed_bytes` counts bytes of the file itself; `damage` says, after the last piece, what could not be read.
    A byte order mark of UTF-8 at the start is left out. Raises OSError where the file cannot be read.
    """

    def __init__(self, path: Source) -> None:
        self.path = path
        self.consumed_bytes = 0
        self.damage: str | None = None
        self.num_bad_characters = 0
        """Characters that `recoded` could not read and replaced by U+FFFD."""
        self._pieces = self._read()
        self._peeked: bytes | None = None

    @property
    def head(self) -> bytes:
        """The first 64 KiB, or less where the file is shorter."""
        return self.peek(_HEAD_BYTES)[:_HEAD_BYTES]

    def peek(self, num_bytes: int) -> bytes:
        """At least the first `num_bytes`, or the whole file where it is shorter; iterating still gives everything."""
        if self._peeked is None or len(self._peeked) < num_bytes:
            kept = bytearray(self._peeked or b"")
            for piece in self._pieces:
                kept += piece
                if len(kept) >= num_bytes:
                    break
            self._peeked = bytes(kept) if self._peeked else bytes(kept).removeprefix(_BOM)
        return self._peeked

    def __iter__(self) -> Iterator[bytes]:
        start = self.peek(_HEAD_BYTES)
        self._peeked = b""
        if start:
            yield start
        yield from self._pieces

    @contextmanager
    def seekable(self) -> Iterator[Any]:
        """The bytes as a file in which one can seek; what is compressed goes through a temporary file."""
        with self.path.open("rb") as file:
            packed = compression(file.read(_MAGIC_BYTES)) is not None
            if not packed:
                file.seek(0)
                yield file
        if packed:
            with tempfile.TemporaryFile() as unpacked:
                for piece in self:
                    unpacked.write(piece)
                unpacked.seek(0)
                yield unpacked

    def _read(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            codec = compression(file.read(_MAGIC_BYTES))
            file.seek(0)
            if codec is None:
                yield from self._raw(file, _PIECE_BYTES)
                return
            unpacker = _Unpacker(codec)
            for raw in self._raw(file, codec.input_bytes):
                yield from unpacker.feed(raw)
            yield from unpacker.finish()
            self.damage = unpacker.damage

    def _raw(self, file: BinaryIO, num_bytes: int) -> Iterator[bytes]:
        while piece := file.read(num_bytes):
            self.consumed_bytes += len(piece)
            yield piece


@dataclass(frozen=True)
class Codec:
    """One compression: how its members begin, and what undoes it."""

    suffix: str
    magic: bytes
    input_bytes: int = _HEAD_BYTES

    def decoder(self) -> Any:
        if self.suffix == ".gz":
            return zlib.decompressobj(wbits=31)
        if self.suffix == ".zst":
            return zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
        if self.suffix == ".xz":
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        return bz2.BZ2Decompressor()

    def pieces(self, decoder: Any, data: bytes) -> Iterator[bytes]:
        """What comes out when `data` goes in, at most `_PIECE_BYTES` at a time (16 MiB for zstd)."""
        if self.suffix == ".zst":
            yield decoder.decompress(data)
            return
        yield decoder.decompress(data, _PIECE_BYTES)
        if self.suffix == ".gz":
            while decoder.unconsumed_tail:
                yield decoder.decompress(decoder.unconsumed_tail, _PIECE_BYTES)
        else:
            while not decoder.eof and not decoder.needs_input:
                yield decoder.decompress(b"", _PIECE_BYTES)


_CODECS = (
    Codec(".gz", b"\x1f\x8b\x08"),
    Codec(".zst", b"\x28\xb5\x2f\xfd", _ZSTD_INPUT_BYTES),
    Codec(".bz2", b"BZh"),
    Codec(".xz", b"\xfd7zXZ\x00"),
)
_MAGIC_BYTES = 10
_ERRORS = (zlib.error, zstandard.ZstdError, lzma.LZMAError, EOFError, ValueError, OSError)


def compression(start: bytes) -> Codec | None:
    """The compression whose archives begin with these bytes (at least 10 where the file has them)."""
    for codec in _CODECS:
        if start.startswith(codec.magic) and (codec.suffix != ".bz2" or start[4:10] in (b"1AY&SY", b"\x17rE8P\x90")):
            return codec
    # zstd files may begin with a frame to be skipped (pzstd, seekable zstd)
    return _CODECS[1] if len(start) >= 4 and start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50 else None


class _Unpacker:
    """Bytes in, decompressed bytes out; over a damaged place it goes on with the next member that holds.

    A line end stands for what was lost, so that two torn lines do not become one.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._decoder = codec.decoder()
        self._is_inside = False  # a member has begun and not ended
        self._searched: bytearray | None = None  # bytes in which no member was found yet
        self._tried: bytearray | None = None  # bytes of a member that is still on trial
        self._held = bytearray()  # and what came out of them
        self._has_given = False
        self._num_gaps_closed = 0
        self._reason: str | None = None

    @property
    def damage(self) -> str | None:
        if self._reason is None or not self._num_gaps_closed:
            return self._reason
        return f"{self._reason}; what follows a damaged place is used from the next whole part on"

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._searched is not None:
                data = self._found(data)
                if not data:
                    return
            if self._tried is not None:
                self._tried += data
            try:
                for piece in self._codec.pieces(self._decoder, data):
                    yield from self._give(piece)
            except _ERRORS as error:
                self._fail(str(error), data)
                data = b""
                if self._tried is None and self._searched:
                    data, self._searched = bytes(self._searched), bytearray()
                continue
            self._is_inside = not self._decoder.eof
            data = b""
            if self._decoder.eof:
                yield from self._accept()
                data = self._decoder.unused_data.lstrip(b"\0")  # zeros behind a member are padding
                self._decoder = self._codec.decoder()

    def finish(self) -> Iterator[bytes]:
        if (
            self._codec.suffix == ".gz"
            and self._is_inside
            and self._searched is None
            and (rest := self._decoder.flush())
        ):
            yield from self._give(rest)
        if self._held:
            yield from self._accept()
        if self._is_inside and self._reason is None:
            self._reason = "it ends too early"

    def _give(self, piece: bytes) -> Iterator[bytes]:
        if not piece:
            return
        if self._tried is None:
            self._has_given = True
            yield piece
            return
        self._held += piece
        if len(self._held) >= _TRIAL_BYTES:
            yield from self._accept()

    def _accept(self) -> Iterator[bytes]:
        """The member on trial holds: what it gave goes out."""
        if self._tried is None:
            return
        held, self._held, self._tried = bytes(self._held), bytearray(), None
        self._num_gaps_closed += 1
        if self._has_given:
            yield b"\n"
        if held:
            self._has_given = True
            yield held

    def _fail(self, reason: str, data: bytes) -> None:
        """Goes over to searching, from the second byte of what failed on: at the first, this member began."""
        if self._reason is None:
            self._reason = reason
        failed = bytes(self._tried) if self._tried is not None else data
        self._tried, self._held, self._is_inside = None, bytearray(), False
        self._searched = bytearray(failed[1:])

    def _found(self, data: bytes) -> bytes:
        """The bytes from the next possible beginning of a member on, or none yet."""
        assert self._searched is not None
        self._searched += data
        at = self._searched.find(self._codec.magic)
        if at < 0:
            del self._searched[: 1 - len(self._codec.magic)]
            return b""
        found, self._searched = bytes(self._searched[at:]), None
        self._decoder, self._tried = self._codec.decoder(), bytearray()
        return found


def recoded(stream: Stream, encoding: str) -> Iterator[bytes]:
    """The stream as UTF-8, whatever it is in; `stream.num_bad_characters` counts what was not in that encoding.

    encoding: a name that `codecs.lookup` knows. UTF-8 passes as it is, `decode` counts its faults.
    """
    if codecs.lookup(encoding).name == "utf-8":
        yield from stream
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for piece in stream:
        text = decoder.decode(piece)
        stream.num_bad_characters += text.count("\ufffd")
        if text:
            yield text.encode()
    if text := decoder.decode(b"", final=True):
        stream.num_bad_characters += text.count("\ufffd")
        yield text.encode()


def lines(pieces: Iterable[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """(line number from 1, line without its end); None stands for a line longer than `max_bytes`."""
    number, kept, too_long = 1, bytearray(), False
    for piece in pieces:
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


def scrub(text: str) -> str:
    """The text with lone surrogates (which JSON can hold and UTF-8 cannot) as U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
