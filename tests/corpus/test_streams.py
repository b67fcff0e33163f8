"""Compressed and plain bytes in pieces, whole and damaged."""

import gzip
from pathlib import Path

import pytest
import zstandard

from foundling.corpus.streams import Stream, binary_reason, decode, lines, scrub

# Compresses little, and is larger than a piece.
DATA = b"".join(i.to_bytes(3) + b" line\n" for i in range(0, 2**24, 101))


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def packed(suffix: str, data: bytes) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    return zstandard.compress(data) if suffix == ".zst" else data


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_what_was_written_is_read(tmp_path: Path, suffix: str) -> None:
    stream = Stream(written(tmp_path, "a.txt" + suffix, packed(suffix, DATA)))
    assert stream.head == DATA[: len(stream.head)]
    assert b"".join(stream) == DATA
    assert stream.damage is None
    assert stream.consumed_bytes == stream.path.stat().st_size


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_pieces_are_bounded(tmp_path: Path, suffix: str) -> None:
    stream = Stream(written(tmp_path, "a" + suffix, packed(suffix, bytes(80 << 20))))
    sizes = [len(piece) for piece in stream]
    assert sum(sizes) == 80 << 20
    assert max(sizes) <= (17 << 20 if suffix == ".zst" else 1 << 20)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_several_members(tmp_path: Path, suffix: str) -> None:
    data = packed(suffix, b"one\n") + packed(suffix, b"two\n")
    assert b"".join(Stream(written(tmp_path, "a" + suffix, data))) == b"one\ntwo\n"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    data = packed(suffix, DATA)
    stream = Stream(written(tmp_path, "a" + suffix, data[: len(data) // 2]))
    got = b"".join(stream)
    assert DATA.startswith(got)
    assert len(got) > len(DATA) // 4
    assert stream.damage == "it ends too early"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_corrupt(tmp_path: Path, suffix: str) -> None:
    good = packed(suffix, b"good\n")
    stream = Stream(written(tmp_path, "a" + suffix, good + b"this is no archive at all"))
    assert b"".join(stream) == b"good\n"
    assert stream.damage


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    stream = Stream(written(tmp_path, "a" + suffix, b""))
    assert list(stream) == []
    assert stream.damage is None


def test_byte_order_mark_goes(tmp_path: Path) -> None:
    assert b"".join(Stream(written(tmp_path, "a", b"\xef\xbb\xbfhello"))) == b"hello"


def test_lines(tmp_path: Path) -> None:
    stream = Stream(written(tmp_path, "a", b"one\n\n" + b"x" * 50 + b"\nlast"))
    assert list(lines(stream, 20)) == [(1, b"one"), (2, b""), (3, None), (4, b"last")]
    stream = Stream(written(tmp_path, "b", DATA))
    assert [line for _, line in lines(stream, 20)] == DATA.split(b"\n")[:-1]


@pytest.mark.parametrize(
    ("data", "num_bad_bytes"),
    [(b"plain", 0), ("é字".encode(), 0), (b"caf\xe9 au lait", 1), (b"\xe5\xad", 2), ("kept \ufffd".encode(), 0)],
)
def test_decode_counts_bad_bytes(data: bytes, num_bad_bytes: int) -> None:
    text, bad = decode(data)
    assert bad == num_bad_bytes
    assert text == data.decode(errors="replace")


def test_binary() -> None:
    assert "NUL" in (binary_reason(b"\x7fELF\0\0") or "")
    assert "UTF-16" in (binary_reason("text".encode("utf-16")) or "")
    assert "another encoding" in (binary_reason("海上生明月".encode("gbk")) or "")
    assert binary_reason("Die Straße führt über die Brücke".encode("latin-1")) is None
    assert binary_reason(b"") is None


def test_scrub() -> None:
    assert scrub("a\ud800b") == "a\ufffdb"
    assert scrub("\ud83d\ude00") == "😀"  # a pair that JSON wrote as two escapes
    assert scrub("字") == "字"
