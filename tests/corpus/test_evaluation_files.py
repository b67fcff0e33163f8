"""Texts of evaluation files in every layout, with their places; faults are told."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundling.core.errors import UserError
from foundling.corpus.evaluation_files import evaluation_files, texts_of

SQUAD = {
    "version": "1.1",
    "data": [
        {"title": "Nets", "paragraphs": []},
        {
            "title": "Boats",
            "paragraphs": [
                {
                    "context": "A boat floats.",
                    "qas": [{"id": "q1", "question": "What floats?", "answers": [{"text": "A boat"}]}],
                }
            ],
        },
    ],
}


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_json_lines(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"q": "one", "choices": ["a b", "c"], "label": 1},
        {"q": "two\u2028", "deep": {"x": ["t"]}},
        "bare",
    ]
    path = written(tmp_path, "a.jsonl", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    assert list(texts_of(path, [])) == [
        ("line 1", "one"),
        ("line 1", "a b c"),
        ("line 1", "a b"),
        ("line 1", "c"),
        ("line 3", "two\u2028"),
        ("line 3", "t"),
        ("line 5", "bare"),
    ]
    assert list(texts_of(path, ["choices", "x"])) == [
        ("line 1", "a b c"),
        ("line 1", "a b"),
        ("line 1", "c"),
        ("line 3", "t"),
    ]


def test_nested_json(tmp_path: Path) -> None:
    path = written(tmp_path, "squad.json", json.dumps(SQUAD))
    paragraph = "data[1].paragraphs[0]"
    assert list(texts_of(path, ["title", "context", "question"])) == [
        ("data[0]", "Nets"),
        ("data[1]", "Boats"),
        (paragraph, "A boat floats."),
        (f"{paragraph}.qas[0]", "What floats?"),
    ]
    assert (f"{paragraph}.qas[0].answers[0]", "A boat") in list(texts_of(path, []))


def test_tables_text_and_compression(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'q,a\n"one, ""two""\nthree",4\nfive,six\n')
    assert list(texts_of(path, ["q"])) == [("line 3", 'one, "two"\nthree'), ("line 4", "five")]
    path = written(tmp_path, "a.tsv", "q\ta\none\ttwo\n")
    assert list(texts_of(path, ["a"])) == [("line 2", "two")]
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("first\n\n zweite Straße\n".encode()))
    assert list(texts_of(path, [])) == [("line 1", "first"), ("line 3", " zweite Straße")]
    pq.write_table(pa.table({"q": ["one", None], "tokens": [["a", "b"], []], "n": [1, 2]}), tmp_path / "a.parquet")
    assert list(texts_of(tmp_path / "a.parquet", [])) == [("row 1", text) for text in ("one", "a b", "a", "b")]


def test_folders_and_files(tmp_path: Path) -> None:
    for name in ("b/two.jsonl", "b/README.md", "b/c/three.json.gz", "one.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        written(tmp_path, name, '"text"')
    found = evaluation_files([str(tmp_path / "one.md"), str(tmp_path / "b")])
    assert [path.name for path in found] == ["one.md", "three.json.gz", "two.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "fields", "message"),
    [
        ("a.jsonl", '{"a": "x"}\n{"a": ', [], "line 2 of .*a.jsonl must be JSON"),
        ("a.json", "[1, ", [], "a.json must be JSON"),
        ("a.jsonl", '{"a": "x"}', ["b"], "must hold text under b; got none in"),
        ("a.txt", "", [], "must hold text; got none in"),
        ("a.parquet", "no parquet", [], "could not be read"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, content: str, fields: list[str], message: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(UserError, match=message):
        list(texts_of(path, fields))


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must exist"):
        evaluation_files([str(tmp_path / "none.jsonl")])
    with pytest.raises(UserError, match="must hold evaluation files"):
        evaluation_files([str(tmp_path)])


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": "text"}\n' * 1000)[:-20])
    with pytest.raises(UserError, match=r"is damaged|must be JSON"):
        list(texts_of(path, []))
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="could not be read"):
        list(texts_of(tmp_path / "b.txt", []))
