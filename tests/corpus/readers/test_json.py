"""One JSON document a file, read an element at a time."""

import json
import tracemalloc
from pathlib import Path

import pytest

from foundling.corpus.readers.base import Record
from foundling.corpus.readers.json import Buffer, Walk
from foundling.corpus.streams import Stream
from tests.corpus.readers.made import problems, read, settled, texts, written

ROWS = [
    {"text": f'row {n} "quoted" \\ é字 {{[,]}}' * (n % 7), "n": n, "deep": {"a": [1, {"b": n}]}} for n in range(500)
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_list_of_objects(tmp_path: Path, indent: int | None, ascii_only: bool) -> None:
    path = written(tmp_path, "a.json", json.dumps(ROWS, indent=indent, ensure_ascii=ascii_only))
    items = read("json", path)
    assert texts(items) == [row["text"] for row in ROWS]
    assert items[7] == Record(str(ROWS[7]["text"]), ":8", {"n": 7, "deep": {"a": [1, {"b": 7}]}})


def test_elements_cross_the_pieces_in_which_a_file_is_read(tmp_path: Path) -> None:
    """Elements of 0.3 to 3 MiB, and pieces of 1 MiB."""
    rows = [{"text": chr(97 + n) * (n * 300_000) + "\\é字\n"} for n in range(1, 10)]
    for ascii_only in (True, False):
        path = written(tmp_path, "a.json", json.dumps(rows, ensure_ascii=ascii_only))
        assert texts(read("json", path)) == [row["text"] for row in rows]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_value_may_be_cut_anywhere(size: int) -> None:
    rows = [{"a": '😀é\\"', "b": [-1.5e10, True, None], "c": {"d": 12}}, "text", {"e": 1234567}]
    data = json.dumps({"x": 1, "list": rows}, indent=1)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [item for _, item in Walk(Buffer(pieces), "list").items(guess=False)] == rows


def test_an_object_with_the_list_inside(tmp_path: Path) -> None:
    data = {
        "version": 1,
        "tags": ["a", "b"],
        "data": [{"content": "one"}, {"content": "two"}],
        "more": [{"content": "no"}],
    }
    path = written(tmp_path, "a.json", json.dumps(data))
    assert texts(read("json", path)) == ["one", "two"]
    assert settled("json", path).list_field == "data"
    assert texts(read("json", path, list_field="more")) == ["no"]


def test_one_object_is_a_document(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", json.dumps({"text": "alone", "entities": [{"start": 0}]}))
    assert read("json", path) == [Record("alone", ":1", {"entities": [{"start": 0}]})]
    path = written(tmp_path, "b.json", '{"text":\n"one"}\n\n{\n"text": "two"}')
    assert texts(read("json", path)) == ["one", "two"]


def test_a_list_of_strings(tmp_path: Path) -> None:
    assert texts(read("json", written(tmp_path, "a.json", '["one", "two"]'))) == ["one", "two"]


def test_a_malformed_element_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    data = '[{"text": "a"},\n{"text": "b "quoted" c"},\n{"text": "d"}, 7, {"text": 8},\n'
    data += '{"text": "e", oops}, {"text": "f"}]'
    items = read("json", written(tmp_path, "a.json", data))
    assert texts(items) == ["a", "d", "f"]
    told = problems(items)
    assert [kind for kind, _ in told] == ["malformed_element", "malformed_element", "no_text", "malformed_element"]
    assert "element 2 (line 2)" in told[0][1]
    assert "element 6 (line 4)" in told[3][1]


def test_a_list_that_ends_too_early(tmp_path: Path) -> None:
    items = read("json", written(tmp_path, "a.json", '[{"text": "a"}, {"text": "b'))
    assert texts(items) == ["a"]
    assert "damaged_file" in dict(problems(items))


def test_an_element_longer_than_a_document_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundling.corpus.readers.json.MAX_DOCUMENT_BYTES", 1 << 20)
    data = '[{"text": "a"}, {"text": "' + "long " * 4_000_000 + '"}, {"text": "b"}]'
    path = written(tmp_path, "a.json", data)
    reader = settled("json", path)
    tracemalloc.start()
    items = list(reader.build().read(Stream(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(items) == ["a", "b"]
    assert [kind for kind, _ in problems(items)] == ["line_too_long"]
    assert peak < 16 << 20


def test_no_field_that_could_be_meant(tmp_path: Path) -> None:
    items = read("json", written(tmp_path, "a.json", '[{"left": "a", "right": "b"}]'))
    assert problems(items)[0][0] == "no_text_field"
    assert "the fields left, right; set text_field=KEY" in problems(items)[0][1]


@pytest.mark.parametrize("data", ["", "  \n", "[]", "{}"])
def test_nothing_in_it(tmp_path: Path, data: str) -> None:
    assert texts(read("json", written(tmp_path, "a.json", data))) == []


def test_other_encodings(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16", "gb18030"):
        data = json.dumps([{"text": "人类社会发展的历史告诉我们，语言是思想的直接现实。"}], ensure_ascii=False)
        assert texts(read("json", written(tmp_path, "a.json", data.encode(encoding)))) == [json.loads(data)[0]["text"]]


def test_a_number_of_more_digits_than_python_reads_costs_its_element_alone(tmp_path: Path) -> None:
    text = '[{"text":"a"},{"text":"b","n":' + "1" * 5000 + '},{"text":"c"}]'
    assert texts(read("json", written(tmp_path, "b.json", text))) == ["a", "c"]
