"""Files of examples: found, read by the format they are of, and every row that makes no example is named."""

import gzip
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundling.core.errors import UserError
from foundling.core.files import sha256_of
from foundling.core.registry import load_part
from foundling.corpus import remote
from foundling.tasks import files
from foundling.tasks.fields import field_of
from foundling.tasks.files import Data, RowFault, examples_of, read_records
from foundling.tasks.formats.base import FOLDER

ROWS = [{"text": f"text {i}, “quoted”", "label": "ab"[i % 2]} for i in range(5)]
TASKS = Path(__file__).parents[3] / "shared" / "data" / "tasks"
COUNTS = {
    "sst2": (6920, 872, 1821),
    "trec-qc": (4929, 452, 500),
    "wnut17": (3394, 1009, 1287),
    "semeval2010-task8": (7200, 800, 2717),
    "xquad-en": (942, 131, 117),
    "xquad-zh": (942, 131, 117),
    "multi30k-en-de": (29000, 1014, 1000),
    "dialogsum": (400, 100, 500),
    "rte": (2567, 800, 800),
    "chnsenticorp-hotel": (6165, 800, 800),
}
"""Examples of train, dev and test, as the README of the data counts them."""
PARTS: dict[str, tuple[str, ...]] = {
    "wnut17": ("tokens", "tags"),
    "semeval2010-task8": ("id", "text", "label"),
    "xquad-en": ("id", "question", "context", "answers"),
    "xquad-zh": ("id", "question", "context", "answers"),
    "multi30k-en-de": ("source", "target"),
    "dialogsum": ("id", "document", "summary"),
    "rte": ("premise", "hypothesis", "label"),
}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path: Path, kind: str) -> Path:
    text = {
        "jsonl": lines(ROWS),
        "json": json.dumps({"version": 1, "data": ROWS}),
        "list": json.dumps(ROWS, indent=1),
        "csv": "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in ROWS),
        "tsv": "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\r\n" for row in ROWS),
    }
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "gz":
        path.write_bytes(gzip.compress(text["jsonl"].encode()))
    else:
        path.write_text(text[kind], encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        ("jsonl", "a.jsonl", "name"), ("jsonl", "a.json", "content"), ("jsonl", "a", "content"),
        ("list", "a.jsonl", "content"), ("list", "a.JSON", "name"), ("list", "a.data", "content"),
        ("json", "a.json", "name"), ("json", "a.txt", "content"),
        ("csv", "a.csv", "name"), ("csv", "a", "content"), ("tsv", "a.tsv", "name"), ("tsv", "a.txt", "content"),
        ("parquet", "a.parquet", "name"), ("parquet", "a.csv", "content"),
        ("gz", "a.jsonl.gz", "name"), ("gz", "a.jsonl", "name"),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_rows(kind: str, name: str, found: str, tmp_path: Path) -> None:
    records = read_records(write(tmp_path / name, kind))
    assert [record.data for record in records.records] == ROWS
    assert not records.faults
    assert [file.found for file in records.files] == [found]


def test_one_line_is_json_lines_or_a_list_as_its_name_says(tmp_path: Path) -> None:
    for name, text in [
        ("a.jsonl", '{"text": "a"}'),
        ("b.jsonl", '{"data": [{"text": "a"}]}'),
        ("c.json", '{"data": [{"text": "a"}]}'),
    ]:
        (tmp_path / name).write_text(text)
        assert [record.data for record in read_records(tmp_path / name).records] == [{"text": "a"}]


def test_rows_of_documents_with_paragraphs_are_not_squad(tmp_path: Path) -> None:
    row = {"paragraphs": [{"qas": [1]}], "text": "a"}
    (tmp_path / "a.jsonl").write_text(lines([row, row]))
    assert [record.data for record in read_records(tmp_path / "a.jsonl").records] == [row, row]
    row = {"paragraphs": [{"title": "b"}], "text": "a"}
    (tmp_path / "a.json").write_text(json.dumps([row, row]))
    assert [record.data for record in read_records(tmp_path / "a.json").records] == [row, row]


def test_a_damaged_first_line_does_not_make_a_table_of_a_named_file(tmp_path: Path) -> None:
    torn = ['"text": "a", "label": 1}', *(f'{{"text": "a{n}", "label": {n}}}' for n in range(9))]
    (tmp_path / "a.jsonl").write_text("\n".join(torn) + "\n")
    found = read_records(tmp_path / "a.jsonl")
    assert [file.format.kind for file in found.files] == ["jsonl"]
    assert (len(found.records), [place for place, _ in found.faults]) == (9, ["a.jsonl:1"])


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "x.jsonl", "jsonl")
    found = read_records([tmp_path / "a" / "x.jsonl", tmp_path / "b" / "x.jsonl"])
    assert [file.name for file in found.files] == ["x.jsonl", "x.jsonl~2"]
    assert found.records[-1].place == "x.jsonl~2:5"
    assert [file.sha256() for file in found.files] == [sha256_of(tmp_path / "a" / "x.jsonl")] * 2


def test_columns_are_known_by_their_tags(tmp_path: Path) -> None:
    for name, gap in [("train.txt", " "), ("train.tsv", "\t")]:
        (tmp_path / name).write_text(f"EU{gap}B-ORG\nrejects{gap}O\n\nPeter{gap}B-PER\n")
        assert [record.data["tags"] for record in read_records(tmp_path / name).records] == [["B-ORG", "O"], ["B-PER"]]


def test_the_format_is_told_once_with_the_number_of_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path / "a.jsonl", "jsonl")
    write(tmp_path / "b.jsonl", "jsonl")
    (tmp_path / "c.csv").write_text("text;label\nein, zwei;1\ndrei, vier;0\n")
    read_records(tmp_path)
    assert sorted(caplog.messages) == [
        f"2 files ({tmp_path.name}/a.jsonl, ...): 10 rows, read as jsonl (by its name)",
        f"{tmp_path.name}/c.csv: 2 rows, read as csv (by its name; guessed: delimiter=';', header=True, quotes=True)",
    ]


def test_a_told_format_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "jsonl")
    (file,) = read_records(path, "jsonl").files
    assert (file.found, file.format.kind) == ("told", "jsonl")
    (file,) = read_records(path, load_part(FOLDER, "jsonl").Config(kind="jsonl", encoding="utf-8")).files
    assert file.found == "told"
    with pytest.raises(UserError, match="did you mean 'jsonl'"):
        read_records(path, "jsnl")


def test_folders_globs_and_lists_are_all_their_files_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "in").mkdir()
    for name in ("b.jsonl", "a.jsonl", "in/c.json"):
        write(tmp_path / name, "jsonl")
    (tmp_path / "README.md").write_text("# words\n")
    (tmp_path / "table.txt").write_text("a\tb\n" * 9)  # may be anything: only a file that is named is taken for CSV
    found = read_records(tmp_path)
    assert [file.name for file in found.files] == [
        f"{tmp_path.name}/{name}" for name in ("a.jsonl", "b.jsonl", "in/c.json")
    ]
    assert found.records[5].place == f"{tmp_path.name}/b.jsonl:1"
    assert "files of other kinds are left out: 2 (.md (1), .txt (1))" in caplog.messages
    assert len(read_records(str(tmp_path / "*.jsonl")).records) == 10
    assert len(read_records([tmp_path / "b.jsonl", str(tmp_path), tmp_path / "b.jsonl"]).records) == 15
    assert read_records([tmp_path / "b.jsonl", tmp_path / "a.jsonl"]).records[0].place == "b.jsonl:1"


def test_an_address_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(remote.RemoteFile):
        def open(self, mode: Any) -> Any:
            return write(tmp_path / "a.jsonl", "jsonl").open(mode)

    monkeypatch.setattr(
        files, "list_files", lambda url: [Elsewhere(f"{url}/a.jsonl", 1), Elsewhere(f"{url}/b.jsonl", 1)]
    )
    records = read_records("hf://datasets/some/thing").records
    assert [records[0].place, records[-1].place, len(records)] == ["a.jsonl:1", "b.jsonl:5", 10]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nothing.jsonl", "a source must exist; got .*nothing.jsonl"),
        ("c*", "a glob must match something"),
        ("empty", r"a file of examples: .*jsonl \(.jsonl, .ndjson\).*; got none in .*empty"),
        ("picture.png", r"picture.png must be of a known format: .*; set task.format=KIND"),
        ("words.txt", r"words.txt must be of a known format"),
        ("binary.jsonl", r"binary.jsonl must be text; got it is binary"),
        ("other.json", r"other.json must be a list of objects"),
    ],
)
def test_what_is_no_file_of_examples_is_refused(given: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG" + bytes(100))
    (tmp_path / "words.txt").write_text("Some words, that stand\nin two lines.\n")
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(32)) * 40)
    (tmp_path / "other.json").write_text('{"train": [{"text": "a"}]}')
    with pytest.raises(UserError, match=told):
        read_records(tmp_path / given)
    with pytest.raises(UserError, match="a file of examples"):
        read_records([])


def make(data: Mapping[str, Any]) -> tuple[str, Any]:
    return field_of(data, "text", {}), field_of(data, "label", {})


def broken(folder: Path) -> Path:
    path = folder / "x.jsonl"
    rows = [
        b'{"text": "a", "label": 1}',
        b'{"text": ',
        b"[1]",
        b"",
        b'{"text": "b"}',
        '{"text": "é", "label": 2}'.encode() * 2,
    ]
    good = '{"text": "é", "label": 3}'.encode()
    path.write_bytes(b"\n".join([*rows, b'{"text": "\xff", "label": 1}', *[good] * 8]))
    return path


def test_every_faulty_row_is_named_and_the_run_ends(tmp_path: Path) -> None:
    records = read_records(broken(tmp_path))
    with pytest.raises(UserError) as told:
        examples_of(records, make)
    message = str(told.value)
    assert "x.jsonl: 5 of 14 rows make no example" in message
    assert "\n  x.jsonl:2: it is not JSON: Expecting value" in message
    assert "\n  x.jsonl:3: it is not a JSON object" in message
    assert "\n  x.jsonl:5: it has no label or labels or class (it has text); set task.fields={label: NAME}" in message
    assert "\n  x.jsonl:6: it is not JSON: Extra data" in message
    assert "\n  x.jsonl:7: 1 bytes of the line are not UTF-8" in message
    assert "task.bad_rows=skip" in message
    with pytest.raises(UserError, match="4 of 14 rows could not be read"):
        records.must_be_whole()


def test_faulty_rows_are_left_out_told_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = examples_of(read_records(broken(tmp_path)), make, "skip")
    assert found == [("a", 1), *[("é", 3)] * 8]
    assert found.places[:2] == ["x.jsonl:1", "x.jsonl:8"]
    assert sorted(place for place, _ in found.left_out) == [f"x.jsonl:{n}" for n in (2, 3, 5, 6, 7)]
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "5 of 14 rows are left out" in warning


def test_one_reason_of_many_rows_is_told_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "jsonl")
    path.write_text(path.read_text() * 4)
    with pytest.raises(UserError) as told:
        examples_of(read_records(path), lambda data: field_of(data, "text", {"text": "body"}))
    assert "20 of 20 rows" in str(told.value)
    assert str(told.value).count("it has no 'body' (it has text, label)") == 1
    assert "a.jsonl:5 and 15 more: " in str(told.value)


def test_only_faults_of_rows_are_caught(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        examples_of(read_records(write(tmp_path / "a.jsonl", "jsonl")), lambda data: 1 / 0, "skip")


def test_a_damaged_archive_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines([{"text": f"{n * 7919}", "label": n} for n in range(5000)]).encode())[:-2000])
    records = read_records(path)
    assert records.faults[-1][0] == "a.jsonl.gz"
    assert "the archive is damaged" in records.faults[-1][1]
    assert 0 < len(examples_of(records, make, "skip")) < 5000


def test_which_fields_were_taken_is_told_once_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name, row in [
        ("a", {"sentence": "a", "class": 1}),
        ("b", {"sentence": "b", "class": 1}),
        ("c", {"text": "c", "y": 1, "label": 2}),
    ]:
        (tmp_path / f"{name}.jsonl").write_text(lines([row] * 3))
    examples_of(read_records(tmp_path), make)
    assert caplog.messages[-2:] == [
        f"2 files ({tmp_path.name}/a.jsonl, ...): text is 'sentence', label is 'class'",
        f"{tmp_path.name}/c.jsonl: text is 'text', label is 'label'",
    ]


def test_a_row_is_a_plain_mapping(tmp_path: Path) -> None:
    (record, *_) = read_records(write(tmp_path / "a.jsonl", "jsonl")).records
    assert isinstance(record.data, Data)
    assert json.loads(json.dumps(record.data)) == ROWS[0]


def test_a_fault_is_no_user_error() -> None:
    assert not issubclass(RowFault, UserError)


@pytest.mark.skipif(not TASKS.is_dir(), reason="the real tasks (../shared/data/tasks) are not here")
@pytest.mark.parametrize("name", COUNTS)
def test_real_files_are_read_whole(name: str) -> None:
    parts = PARTS.get(name, ("text", "label"))
    for split, count in zip(("train", "dev", "test"), COUNTS[name], strict=True):
        records = read_records(str(TASKS / name / f"{split}.json*"))
        found = examples_of(records, lambda data: [field_of(data, role, {}) for role in parts])
        assert len(found) == count
        assert not found.left_out
