"""Compressed and plain bytes in pieces, whole and damaged."""

import bz2
import gzip
import lzma
import random
from pathlib import Path

import pytest
import zstandard

from foundling.corpus.streams import COMPRESSIONS, Stream, decode, lines, recoded, scrub

# Compresses little, and is larger than a piece.
DATA = b"".join(i.to_bytes(3) + b" line\n" for i in range(0, 2**24, 101))


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def packed(suffix: str, data: bytes) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if suffix == ".bz2":
        return bz2.compress(data)
    if suffix == ".xz":
        return lzma.compress(data, preset=1)
    return zstandard.compress(data) if suffix == ".zst" else data


@pytest.mark.parametrize("suffix", ["", *COMPRESSIONS])
def test_what_was_written_is_read(tmp_path: Path, suffix: str) -> None:
    stream = Stream(written(tmp_path, "a.txt" + suffix, packed(suffix, DATA)))
    assert stream.head == DATA[: len(stream.head)]
    assert b"".join(stream) == DATA
    assert stream.damage is None
    assert stream.consumed_bytes == stream.path.stat().st_size


@pytest.mark.parametrize("suffix", ["", *COMPRESSIONS])
def test_pieces_are_bounded(tmp_path: Path, suffix: str) -> None:
    stream = Stream(written(tmp_path, "a" + suffix, packed(suffix, bytes(80 << 20))))
    sizes = [len(piece) for piece in stream]
    assert sum(sizes) == 80 << 20
    assert max(sizes) <= (17 << 20 if suffix == ".zst" else 1 << 20)


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_several_members(tmp_path: Path, suffix: str) -> None:
    data = packed(suffix, b"one\n") + packed(suffix, b"two\n")
    assert b"".join(Stream(written(tmp_path, "a" + suffix, data))) == b"one\ntwo\n"


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_truncated(tmp_path: Path, suffix: str) -> None:
    data = packed(suffix, DATA)
    stream = Stream(written(tmp_path, "a" + suffix, data[: len(data) // 2]))
    got = b"".join(stream)
    assert DATA.startswith(got)
    assert suffix == ".bz2" or len(got) > len(DATA) // 4  # bz2 gives whole blocks of 900 kB
    assert stream.damage == "it ends too early"


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_corrupt(tmp_path: Path, suffix: str) -> None:
    good = packed(suffix, b"good\n")
    stream = Stream(written(tmp_path, "a" + suffix, good + b"this is no archive at all"))
    assert b"".join(stream) == b"good\n"
    assert stream.damage


@pytest.mark.parametrize("suffix", ["", *COMPRESSIONS])
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


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_behind_a_damaged_place_the_next_member_is_used(tmp_path: Path, suffix: str) -> None:
    """Three members, the second with its middle overwritten: the first and the third are whole, and no line is made."""
    rng = random.Random(0)
    parts = [b"".join(b"%d %d\n" % (n, rng.getrandbits(64)) for _ in range(20_000)) for n in range(3)]
    members = [bytearray(packed(suffix, part)) for part in parts]
    middle = len(members[1]) // 2
    members[1][middle : middle + 2000] = rng.randbytes(2000)
    stream = Stream(written(tmp_path, "a" + suffix, b"".join(members)))
    got = b"".join(stream)
    assert got.startswith(parts[0])
    assert got.endswith(b"\n" + parts[2])
    between = got[len(parts[0]) : -len(parts[2])]
    assert suffix == ".gz" or parts[1].startswith(between.rstrip(b"\n"))
    assert stream.damage
    assert "next whole part" in stream.damage
    assert stream.consumed_bytes == stream.path.stat().st_size


def test_bytes_that_look_like_a_member_are_none(tmp_path: Path) -> None:
    """Behind the damage stand beginnings that give nothing, or something and then fail: neither is taken for text."""
    rng = random.Random(1)
    torn = bytearray(packed(".gz", b"FALSE" + rng.randbytes(9000)))
    torn[6000:] = bytes(7) + b"\xff" * 3000
    data = packed(".gz", b"one\n") + b"\x1f\x8b\x08\xff"
    data += b"".join(b"\x1f\x8b\x08\x00" + rng.randbytes(300) for _ in range(50))
    data = data.ljust((1 << 16) - 4000, b"-") + bytes(torn)  # its first 4000 bytes are read before the damage is
    data += packed(".gz", b"two\n")
    assert b"".join(Stream(written(tmp_path, "a.gz", data))) == b"one\n\ntwo\n"


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_the_content_says_how_it_is_compressed(tmp_path: Path, suffix: str) -> None:
    assert b"".join(Stream(written(tmp_path, "a.txt", packed(suffix, b"text\n")))) == b"text\n"
    assert b"".join(Stream(written(tmp_path, "b.txt" + suffix, b"plain\n"))) == b"plain\n"


@pytest.mark.parametrize("suffix", ["", *COMPRESSIONS])
def test_seekable(tmp_path: Path, suffix: str) -> None:
    with Stream(written(tmp_path, "a" + suffix, packed(suffix, DATA))).seekable() as file:
        file.seek(-10, 2)
        assert file.read() == DATA[-10:]


def test_recoded(tmp_path: Path) -> None:
    text = "第一行\n第二行，é\n" * 30_000
    for encoding in ("gb18030", "utf-16"):
        stream = Stream(written(tmp_path, encoding, text.encode(encoding)))
        assert b"".join(recoded(stream, encoding)).decode() == text
        assert stream.num_bad_characters == 0
    stream = Stream(written(tmp_path, "bad", "第一行".encode("gb18030")[:-1]))
    assert b"".join(recoded(stream, "gb18030")).decode() == "第一\ufffd"
    assert stream.num_bad_characters == 1


def test_peek_takes_nothing_away(tmp_path: Path) -> None:
    stream = Stream(written(tmp_path, "a.gz", packed(".gz", DATA)))
    assert len(stream.peek(1 << 20)) >= 1 << 20
    assert stream.head == DATA[: 1 << 16]
    assert b"".join(stream) == DATA


def test_scrub() -> None:
    assert scrub("a\ud800b") == "a\ufffdb"
    assert scrub("\ud83d\ude00") == "😀"  # a pair that JSON wrote as two escapes
    assert scrub("字") == "字"
