"""Plain text and JSON lines: encodings, NUL bytes, long lines, guesses."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from foundling.corpus.readers.base import Record
from foundling.corpus.streams import Stream
from tests.corpus.readers.made import problems, read, settled, texts, written

DIRTY = Path(__file__).parents[4] / "shared" / "data" / "corpora" / "dirty.jsonl"
CHINESE = "人类社会发展的历史告诉我们，语言是思想的直接现实。\n天下大势，分久必合，合久必分。\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"])
def test_texts_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    assert read("text", written(tmp_path, "a.txt", CHINESE.encode(encoding))) == [Record(CHINESE)]
    line = json.dumps({"text": CHINESE, "n": 1}, ensure_ascii=False)
    assert read("jsonl", written(tmp_path, "a.jsonl", line.encode(encoding))) == [Record(CHINESE, ":1", {"n": 1})]


def test_the_encoding_can_be_set(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "字".encode("big5"))
    assert texts(read("text", path, encoding="big5")) == ["字"]
    path = written(tmp_path, "a.txt", "字\n".encode("gb18030") + b"\xff\n")
    items = read("text", path, encoding="GB18030")
    assert texts(items) == ["字\n\ufffd\n"]
    assert problems(items)[0][0] == "not_in_encoding"


def test_what_cannot_be_told_is_left_out(tmp_path: Path) -> None:
    items = read("text", written(tmp_path, "a.txt", bytes(range(128, 256)) * 3))
    assert [kind for kind, _ in problems(items)] in (["unknown_encoding"], ["binary"])
    assert not texts(items)
    assert problems(read("text", written(tmp_path, "b.txt", os.urandom(3000))))[0][0] == "binary"


def test_nul_bytes_are_removed_and_counted(tmp_path: Path) -> None:
    items = read("text", written(tmp_path, "a.txt", b"one\0two" + b" and more words" * 20))
    assert texts(items) == ["onetwo" + " and more words" * 20]
    assert problems(items) == [("nul_bytes", "1 NUL bytes are removed")]


def test_a_line_of_200_mb(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "one"}\n{"text": "')
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"text": "two"}\n')
    reader = settled("jsonl", path).build()
    tracemalloc.start()
    items = list(reader.read(Stream(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(items) == ["one", "two"]
    assert problems(items) == [("line_too_long", "line 2 is longer than 33554432 bytes")]
    assert peak < 100 << 20


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"Text": "a", "title": "b"}, "Text"),
        ({"标题": "a", "正文": "b"}, "正文"),
        ({"id": "a", "essay": "Prose that goes on for more than half a line, as prose does."}, "essay"),
        ({"only": "a", "n": 1}, "only"),
        ({"title": "a"}, None),
        ({"left": "a", "right": "b"}, None),
    ],
)
def test_the_text_field_is_guessed(tmp_path: Path, row: dict, field: str | None) -> None:
    path = written(tmp_path, "a.jsonl", json.dumps(row))
    assert settled("jsonl", path).text_field == field
    assert bool(texts(read("jsonl", path))) == (field is not None)


@pytest.mark.skipif(not DIRTY.is_file(), reason="the real corpora (../shared/data/corpora) are not here")
def test_every_malformed_line_is_told_by_number() -> None:
    items = read("jsonl", DIRTY)
    assert len(texts(items)) == 197
    assert problems(items) == [("malformed_line", f"line {n} is not a JSON object") for n in (41, 97, 158)]
