"""Web archives, whole, cut short and damaged."""

import gzip
import random
import zlib
from pathlib import Path

import pytest

from foundling.corpus.readers.base import Problem, Record
from foundling.corpus.streams import Stream
from tests.corpus.readers.made import problems, read, texts, written

RNG = random.Random(0)
WORDS = [[f"word{RNG.randrange(10_000)}" for _ in range(300)] for _ in range(30)]
PAGES = [f"<html><title>T{n}</title><body><p>Page {n}</p><p>{' '.join(words)}</p>" for n, words in enumerate(WORDS)]
EXPECTED = [f"Page {n}\n\n{' '.join(words)}" for n, words in enumerate(WORDS)]


def record(kind: str, block: bytes, content_type: str = "application/http; msgtype=response", uri: str = "") -> bytes:
    fields = f"WARC-Type: {kind}\r\nWARC-Target-URI: {uri}\r\nContent-Type: {content_type}\r\n"
    return f"WARC/1.0\r\n{fields}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def answer(body: bytes, content_type: str = "text/html", status: str = "200 OK", fields: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{fields}\r\n".encode() + body


def archive() -> list[bytes]:
    return [record("response", answer(page.encode()), uri=f"http://example.com/{n}") for n, page in enumerate(PAGES)]


@pytest.mark.parametrize("packed", [False, True])
def test_pages_and_texts_are_documents(tmp_path: Path, packed: bool) -> None:
    records = [
        record("warcinfo", b"software: made\r\n", "application/warc-fields"),
        record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
        *archive(),
        record("response", answer(b"\x89PNG\r\n\x1a\n\0\0", "image/png")),
        record("response", answer(b"<p>not here</p>", status="404 Not Found")),
        record("response", answer(b"plain text", "text/plain")),
        record("conversion", "来自 WET".encode(), "text/plain"),
    ]
    data = b"".join(gzip.compress(part) for part in records) if packed else b"".join(records)
    items = read("warc", written(tmp_path, "a.warc.gz" if packed else "a.warc", data))
    assert texts(items) == [*EXPECTED, "plain text", "来自 WET"]
    assert items[0] == Record(EXPECTED[0], ":3", {"url": "http://example.com/0", "title": "T0"})
    assert problems(items) == [("other_content", "2 records hold neither HTML nor text, or an error")]


def test_bodies_as_servers_send_them(tmp_path: Path) -> None:
    page = "<html><body><p>die Straße</p></body></html>".encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (page[:10], page[10:])) + b"0\r\n\r\n"
    gbk = "<html><head><meta charset='gbk'></head><body>人类社会发展的历史</body></html>".encode("gbk")
    bodies = [
        answer(chunks, fields="Transfer-Encoding: chunked\r\n"),
        answer(page, fields="Transfer-Encoding: chunked\r\n"),  # undone by the crawler, still in the header
        answer(gzip.compress(page), fields="Content-Encoding: gzip\r\n"),
        answer(zlib.compress(page), fields="Content-Encoding: deflate\r\n"),
        answer(page.decode().encode("latin-1"), "text/html; charset=ISO-8859-1"),
        answer(gbk),
    ]
    items = read("warc", written(tmp_path, "a.warc", b"".join(record("response", body) for body in bodies)))
    assert texts(items) == ["die Straße"] * 5 + ["人类社会发展的历史"]


@pytest.mark.parametrize("packed", [False, True])
def test_cut_short(tmp_path: Path, packed: bool) -> None:
    data = b"".join(map(gzip.compress, archive())) if packed else b"".join(archive())
    path = written(tmp_path, "a.warc", data[: len(data) * 2 // 3 + 777])
    items = read("warc", path)
    assert texts(items) == EXPECTED[: len(texts(items))]
    assert 18 <= len(texts(items)) <= 20
    if packed:
        stream = Stream(path)
        assert b"".join(stream)
        assert stream.damage == "it ends too early"
    else:
        assert problems(items) == [("malformed_record", f"record {len(texts(items)) + 1} is cut short")]


@pytest.mark.parametrize("packed", [False, True])
def test_behind_a_damaged_record_the_next_one_is_read(tmp_path: Path, packed: bool) -> None:
    records = archive()
    if packed:
        members = [bytearray(gzip.compress(part)) for part in records]
        members[10][300:400] = random.Random(1).randbytes(100)
        data = b"".join(members)
    else:
        records[10] = records[10][:400] + records[10][900:]  # 500 bytes lost: its length reaches into the next one
        data = b"".join(records)
    items = read("warc", written(tmp_path, "a.warc", data))
    assert texts(items) == EXPECTED[:10] + EXPECTED[11:]


def test_a_record_without_a_length_and_rubbish(tmp_path: Path) -> None:
    data = b"rubbish before\n" + record("response", answer(PAGES[0].encode()))
    data += b"WARC/1.0\r\nWARC-Type: response\r\n\r\nno length\r\n\r\n" + record("response", answer(PAGES[1].encode()))
    items = read("warc", written(tmp_path, "a.warc", data))
    assert texts(items) == EXPECTED[:2]
    assert problems(items) == [
        ("malformed_record", "record 2 has no whole header"),
        ("damaged_file", "14 bytes between records belong to none"),
    ]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_what_is_no_archive_is_told(tmp_path: Path, name: str) -> None:
    data = b"<html><body>A page that somebody named so.</body></html>"
    items = read("warc", written(tmp_path, name, gzip.compress(data) if name.endswith("gz") else data))
    assert items == [Problem("damaged_file", f"{len(data)} bytes are no WARC records")]
    items = read("warc", written(tmp_path, name, record("response", answer(PAGES[0].encode())) + data))
    assert problems(items) == [("damaged_file", f"{len(data)} bytes between records belong to none")]
