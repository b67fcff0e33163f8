"""Sources to an ordered list of files."""

import gc
import gzip
import io
import logging
import lzma
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundling.core.errors import UserError
from foundling.corpus.build import Config, build_corpus
from foundling.corpus.inputs import Inputs, _walk, find_inputs, settle
from foundling.corpus.readers.base import Problem
from foundling.corpus.readers.csv import Config as CsvConfig
from foundling.corpus.streams import Stream


def test_sorted_and_each_file_once(tmp_path: Path) -> None:
    top = tmp_path / "top"
    names = [f"{number:02d}.txt" for number in range(30)]
    for name in reversed(names):
        top.mkdir(exist_ok=True)
        (top / name).write_text(name)
    (top / "again.txt").symlink_to(top / "00.txt")
    found = find_inputs([top / "07.txt", str(top / "*.txt"), top], None, tmp_path / "out")
    assert [file.name for file in found] == ["07.txt", *(name for name in names if name != "07.txt")]
    assert [file.name for file in find_inputs([top], None, tmp_path / "out")] == [f"top/{name}" for name in names]


def test_a_link_to_a_folder_above_is_not_entered(tmp_path: Path) -> None:
    """Two loops a folder: entered until the system's limit of 40 links, these would be 2^40 paths."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "a.txt").write_text("one")
    for name in ("one", "two"):
        (top / name).symlink_to(top)
    problems: list[tuple[str, Problem]] = []
    assert list(_walk(top, frozenset(), "/nowhere", problems)) == [top / "a.txt"]
    assert [(name, problem.kind) for name, problem in problems] == [(str(top / n), "loop") for n in ("one", "two")]


def test_below_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refused)
    with pytest.raises(UserError, match=r"can be read; got .*/closed/\*\.txt: Permission denied"):
        find_inputs([str(tmp_path / "closed" / "*.txt")], None, tmp_path / "out")


def test_the_folder_to_write_is_left_out(tmp_path: Path) -> None:
    for path in (tmp_path / "a.txt", tmp_path / "out" / "b.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("text")
    assert [file.path for file in find_inputs([tmp_path], None, tmp_path / "out")] == [tmp_path / "a.txt"]


def kinds(found: Inputs) -> dict[str, str]:
    return {file.name: file.reader.kind for file in found}


def test_the_format_by_suffix_and_by_content(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    pq.write_table(pa.table({"text": ["a"]}), top / "a.parquet")
    parquet = (top / "a.parquet").read_bytes()
    files: dict[str, tuple[bytes, str]] = {
        "b.csv": (parquet, "parquet"),
        "c.txt": (gzip.compress(b"text"), "text"),
        "d.txt": (b"WARC/1.0\r\nWARC-Type: warcinfo\r\n", "warc"),
        "e.json": (b'{"text": "a"}\n{"text": "b"}\n', "jsonl"),
        "f.json": (b'{"data": [{"text": "a"}]}\n', "json"),
        "g.jsonl": (b'[\n{"text": "a"},\n{"text": "b"}\n]', "json"),
        "h.jsonl": (b'{"text": "a"}\n', "jsonl"),
        "i.csv.gz": (gzip.compress(b"id,text\n1,a\n"), "csv"),
        "j": (b"just words\n", "text"),
        "k": (b"<!doctype html><p>a", "html"),
        "l": (b'{"text": "a"}\n{"text": "b"}\n', "jsonl"),
        "m": (b"id,text\n1,a\n2,b\n3,c\n4,d\n", "csv"),
        "n": (parquet, "parquet"),
        "o.md": (b"<!doctype html><p>in Markdown, HTML may stand", "text"),
        "p.HTML": (b"<p>a", "html"),
        "q.tsv.xz": (lzma.compress(b"text\na\n"), "csv"),
    }
    for name, (data, _) in files.items():
        (top / name).write_bytes(data)
    (top / "r").write_bytes(b"\x7fELF\0\0\0\1")
    (top / "s.png").write_bytes(b"words")
    found = find_inputs([top], None, tmp_path / "out")
    assert kinds(found) == {"top/a.parquet": "parquet", **{f"top/{name}": kind for name, (_, kind) in files.items()}}
    told = {name.removeprefix("top/"): problem.kind for name, problem in found.problems}
    assert told == dict.fromkeys(("b.csv", "c.txt", "d.txt", "e.json", "g.jsonl"), "other_format")


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data, kind in ((b'{"text": "a"}\n{"text": "b"}\n', "jsonl"), (gzip.compress(b"words"), "text")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        found = find_inputs(["-"], None, tmp_path / "out")
        assert kinds(found) == {"stdin": kind}
        assert found[0].source == "stdin"
        path = found[0].path
        assert b"".join(Stream(path)) in (data, b"words")
        assert not found.problems
        del found
        gc.collect()
        assert not Path(str(path)).exists()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"id;text")))
    assert kinds(find_inputs(["-"], CsvConfig(kind="csv"), tmp_path / "out")) == {"stdin": "csv"}


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "closed").mkdir(parents=True)
    (top / "a.txt").write_text("one")
    (top / "lost.txt").symlink_to(top / "nothing")
    (top / "closed").chmod(0)
    found = find_inputs([top], None, tmp_path / "out")
    (top / "closed").chmod(0o700)
    assert [file.name for file in found] == ["top/a.txt"]
    expected = {str(top / "lost.txt")} | (set() if os.access("/root", os.R_OK) else {str(top / "closed")})
    assert {name for name, problem in found.problems if problem.kind == "unreadable"} == expected


def test_guesses_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(5):
        (tmp_path / f"{number}.jsonl").write_text('{"content": "a"}\n')
    found = find_inputs([tmp_path], None, tmp_path / "out")
    with caplog.at_level(logging.INFO, logger="foundling"):
        readers = settle(found)
        settle(found, text_field="content")
    assert {reader.text_field for reader in readers.values()} == {"content"}  # type: ignore[attr-defined]
    assert len(caplog.messages) == 1
    assert "5 files" in caplog.text
    assert "text_field" in caplog.text


def test_a_source_that_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe or a device; give it on standard input"):
        find_inputs([tmp_path / "a.txt", tmp_path / "pipe"], None, tmp_path / "out")
    (tmp_path / "b.txt").symlink_to(tmp_path / "nothing")
    found = find_inputs([str(tmp_path / "*.txt")], None, tmp_path / "out")
    assert [problem.kind for _, problem in found.problems] == ["unreadable"]


def test_of_a_corpus_folder_only_its_documents_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "long enough to stay"}\n{"text": "no"}\n')
    config = Config(steps=[{"kind": "length", "min_characters": 10}], valid_fraction=0)
    build_corpus([tmp_path / "a.jsonl"], tmp_path / "one", config)
    names = [file.name for file in find_inputs([tmp_path / "one"], None, tmp_path / "out")]
    assert names
    assert all(name.startswith("one/documents/") for name in names)
