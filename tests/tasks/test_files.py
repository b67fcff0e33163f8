"""Files of examples: every format gives the same rows, and what is no row is named."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundling.core.errors import UserError
from foundling.tasks.fields import field_of, has_field
from foundling.tasks.files import RowFault, examples_of, read_records
from foundling.tasks.formats.conll import Config as Conll
from foundling.tasks.formats.csv import Config as Csv
from foundling.tasks.labels import learn_labels
from foundling.tasks.overlap import tell_overlap

ROWS = [{"text": f"text {i}, “quoted”", "label": "ab"[i % 2]} for i in range(4)]
TASKS = Path(__file__).parents[3] / "shared" / "data" / "tasks"


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, kind: str) -> Path:
    quoted = "".join(f'"{row["text"]}",{row["label"]}\n' for row in ROWS)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "gz":
        path.write_bytes(gzip.compress(lines(ROWS).encode()))
    else:
        text = {
            "jsonl": lines(ROWS),
            "json": json.dumps({"data": ROWS}),
            "list": json.dumps(ROWS, indent=1),
            "csv": "text,label\n" + quoted,
            "tsv": "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\r\n" for row in ROWS),
        }[kind]
        path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("jsonl", "a.jsonl"), ("jsonl", "a.json"), ("jsonl", "a.data"), ("json", "a.json"), ("list", "a.json"),
        ("csv", "a.csv"), ("csv", "a.unknown"), ("tsv", "a.tsv"), ("parquet", "a.parquet"), ("parquet", "a.x"),
        ("gz", "a.jsonl.gz"),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_rows(kind: str, name: str, tmp_path: Path) -> None:
    found = read_records(str(write(tmp_path / name, kind)))
    assert [dict(record.data) for record in found.records] == ROWS
    assert not found.faults


def test_folders_and_globs_are_all_their_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", "jsonl")
    assert len(read_records(str(tmp_path)).records) == 8
    assert len(read_records(str(tmp_path / "*.jsonl")).records) == 8
    with pytest.raises(UserError, match="none at"):
        read_records(str(tmp_path / "c*"))


def test_columns_of_words_and_tags(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n# a comment\nPeter NNP B-PER\n"
    (tmp_path / "train.txt").write_text(text)
    expected = [{"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}, {"tokens": ["Peter"], "tags": ["B-PER"]}]
    assert [r.data for r in read_records(str(tmp_path / "train.txt")).records] == expected
    poses = read_records(str(tmp_path / "train.txt"), Conll(kind="conll", tag_column=1)).records
    assert poses[0].data["tags"] == ["NNP", "VBZ"]
    (tmp_path / "short.conll").write_text("a O\nb\n\nc O\n")
    found = read_records(str(tmp_path / "short.conll"), Conll(kind="conll", tag_column=1))
    assert [(place, reason) for place, reason in found.faults] == [("short.conll:1", "line 2 has 1 columns")]
    assert len(found.records) == 1


def test_questions_are_rows(tmp_path: Path) -> None:
    question = {"id": "q1", "question": "who", "answers": [{"text": "she", "answer_start": 3}]}
    data = {"data": [{"title": "t", "paragraphs": [{"context": "as she said", "qas": [question]}]}]}
    (tmp_path / "dev.json").write_text(json.dumps(data))
    (record,) = read_records(str(tmp_path / "dev.json")).records
    assert record.place == "dev.json:question q1"
    assert record.data["answers"] == {"text": ["she"], "answer_start": [3]}


def test_each_faulty_row_is_named(tmp_path: Path) -> None:
    broken = '{"text": "a", "label": 1}\n{"text": \n[1]\n\n{"text": "b"}\n'
    (tmp_path / "x.jsonl").write_bytes(broken.encode() + b'{"text": "\xff", "label": 1}\n')

    def make(data: Mapping[str, Any]) -> Any:
        return field_of(data, "text", {}), field_of(data, "label", {})

    records = read_records(str(tmp_path / "x.jsonl"))
    with pytest.raises(UserError) as told:
        examples_of(records, make)
    for line in ("4 of 5 rows", "x.jsonl:2: it is no JSON", "x.jsonl:3: it is no JSON object", "x.jsonl:6: 1 bytes"):
        assert line in str(told.value)
    assert "x.jsonl:5: it has no label or labels or class (it has text)" in str(told.value)
    assert examples_of(records, make, "skip") == [("a", 1)]


def test_tables_without_a_header_are_named_by_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,good\n0,bad\n1\n")
    found = read_records(str(tmp_path / "a.csv"), Csv(kind="csv", columns=("label", "text")))
    assert [r.data for r in found.records] == [{"label": "1", "text": "good"}, {"label": "0", "text": "bad"}]
    assert found.faults == [("a.csv:3", "it has 1 fields, and there are 2 columns")]


def test_fields_by_usual_and_by_given_names() -> None:
    assert field_of({"sentence": "a"}, "text", {}) == "a"
    assert field_of({"body": "a", "text": "b"}, "text", {"text": "body"}) == "a"
    assert not has_field({"text": "b"}, "text", {"text": "body"})
    with pytest.raises(RowFault, match="it has no body"):
        field_of({"text": "b"}, "text", {"text": "body"})


def test_labels_are_learnt_and_odd_ones_told() -> None:
    assert learn_labels({"train": [["10"], ["2"], ["1"]]}) == ["1", "2", "10"]
    assert learn_labels({"train": [["b"], ["a", "c"]]}) == ["a", "b", "c"]
    with pytest.raises(UserError, match="at least 2 labels"):
        learn_labels({"train": [["a"], ["a"]]})
    with pytest.raises(UserError, match=r"every label of test .*'c' \(2\): 2 of 3 labels"):
        learn_labels({"train": [["a"], ["b"]], "test": [["c"], ["c"], ["a"]]})


def test_texts_in_two_splits_are_counted() -> None:
    train = [("A  b", 1), ("a B", 2), ("c", 1)]
    assert tell_overlap({"train": train, "dev": [("ａ b", 1), ("d", 1)], "test": [("D", 1), ("c", 1)]}) == {
        "train, several answers": 1,
        "dev in train": 1,
        "test in train": 1,
        "test in dev": 1,
    }


@pytest.mark.skipif(not TASKS.is_dir(), reason="the shared task files are not here")
@pytest.mark.parametrize(
    ("name", "number"),
    [("sst2/train.jsonl", 6920), ("wnut17/test.jsonl", 1287), ("semeval2010-task8/train.jsonl.gz", 7200),
     ("xquad-zh/dev.json", 131), ("multi30k-en-de/test.jsonl", 1000)],
)  # fmt: skip
def test_real_files_are_read_whole(name: str, number: int) -> None:
    found = read_records(str(TASKS / name))
    assert (len(found.records), len(found.faults)) == (number, 0)
