"""Pages and chapters of e-books as files."""

from pathlib import Path

import pytest

from foundling.corpus.readers.base import Record
from tests.corpus.readers.made import problems, read, settled, texts, written


def test_a_page(tmp_path: Path) -> None:
    page = "<!DOCTYPE html><title>A &amp; B</title><nav><a href=/>Home</a></nav><h1>Head</h1><p>One<p>Two"
    assert read("html", written(tmp_path, "a.html", page)) == [Record("Head\n\nOne\n\nTwo", "", {"title": "A & B"})]


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "utf-16", "utf-8", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "滾滾長江東逝水，浪花淘盡英雄。是非成敗轉頭空，青山依舊在，幾度夕陽紅。"
    path = written(tmp_path, "a.html", f"<html><body><p>{text}</p></body></html>".encode(encoding))
    assert texts(read("html", path)) == [text]


def test_what_the_page_declares(tmp_path: Path) -> None:
    page = '<html><head><meta charset="iso-8859-2"></head><body>Łódź, ďalší</body></html>'
    path = written(tmp_path, "a.html", page.encode("iso-8859-2"))
    assert texts(read("html", path)) == ["Łódź, ďalší"]
    assert settled("html", path).encoding == "iso8859-2"


def test_binary_and_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(read("html", written(tmp_path, "a.html", b"\x7fELF\0\0\0\1\2")))[0][0] == "binary"
    monkeypatch.setattr("foundling.corpus.readers.html.MAX_DOCUMENT_BYTES", 1000)
    assert problems(read("html", written(tmp_path, "b.html", "<p>" * 1000)))[0][0] == "line_too_long"
