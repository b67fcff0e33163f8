"""Rows of comma- and tab-separated files, and what spreadsheets and careless programs make of them."""

import csv
import io
from pathlib import Path

import pytest

from foundling.corpus.readers.base import Record
from tests.corpus.readers.made import problems, read, settled, texts, written

TEXTS = ["plain words", 'with "quotes", a comma', "two\nlines; and a semicolon", "tab\there", "字，字", " spaces "]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_was_written_is_read(tmp_path: Path, delimiter: str, line_end: str) -> None:
    out = io.StringIO(newline="")
    rows = csv.writer(out, delimiter=delimiter, lineterminator=line_end)
    rows.writerows([("id", "content", "n"), *((f"r{n}", text, n) for n, text in enumerate(TEXTS))])
    items = read("csv", written(tmp_path, "a.csv", out.getvalue()))
    assert texts(items) == TEXTS
    assert items[1] == Record(TEXTS[1], ":3", {"id": "r1", "n": "1"})
    assert isinstance(items[3], Record)
    assert items[3].suffix == ":6"  # the line where the row begins: the one before has two lines


def test_tsv_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", 'id\ttext\n1\tsaid "no, no"\n2\tb\n')
    assert texts(read("csv", path)) == ['said "no, no"', "b"]


@pytest.mark.parametrize(
    ("data", "header", "field"),
    [
        ("id,text\n1,a\n", True, "text"),
        ("标题,正文\n一,海上生明月\n", True, "正文"),
        ("review\nI loved this film and would see it again at any time of the day\n", True, "review"),
        ("I loved it\nA film that I would not see again on any day of the week or the month\n", False, "column_1"),
        ("1,I loved it\n0,I would not see this film again, on any day of the week\n", False, "column_2"),
        ("id,left,score\n1,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,2\n", True, "left"),
    ],
)
def test_header_and_text_are_guessed(tmp_path: Path, data: str, header: bool, field: str) -> None:
    config = settled("csv", written(tmp_path, "a.csv", data), **({} if "," in data else {"delimiter": ";"}))
    assert (config.header, config.text_field) == (header, field)


def test_a_row_of_another_length_is_told(tmp_path: Path) -> None:
    items = read("csv", written(tmp_path, "a.csv", "id,text\n1,a\n2\n3,b,c\n4,\n5,d\n"))
    assert texts(items) == ["a", "", "d"]
    assert [detail[:7] for _, detail in problems(items)] == ["line 3 ", "line 4 "]
    assert {kind for kind, _ in problems(items)} == {"malformed_row"}


def test_a_quote_that_is_never_closed_takes_one_line(tmp_path: Path) -> None:
    rows = "".join(f"{n},row {n}\n" for n in range(4, 300))
    for middle in ('3,"never closed\n', '3,"never closed\n' + '4,"good, and closed"\n'):
        items = read("csv", written(tmp_path, "a.csv", "id,text\n1,a\n" + middle + rows))
        expected = ["a", *(["good, and closed"] if "good" in middle else []), *(f"row {n}" for n in range(4, 300))]
        assert texts(items) == expected
        assert problems(items) == [("malformed_row", "line 3 opens a quote that is never closed")]


def test_stray_quotes_inside_a_line_are_characters(tmp_path: Path) -> None:
    items = read("csv", written(tmp_path, "a.csv", 'id,text\n1,a 5" pipe\n2,"so" he said\n3,b\n'))
    assert texts(items) == ['a 5" pipe', "so he said", "b"]
    assert not problems(items)


def test_a_huge_field_and_a_huge_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundling.corpus.readers.csv.MAX_DOCUMENT_BYTES", 100_000)
    huge = '2,"' + "long\n" * 40_000 + '"\n'
    items = read(
        "csv", written(tmp_path, "a.csv", "id,text\n1,a\n" + huge + "3,b\n" + "4," + "x" * 200_000 + "\n5,c\n")
    )
    assert texts(items)[0] == "a"
    assert texts(items)[-2:] == ["b", "c"]
    kinds = [kind for kind, _ in problems(items)]
    assert kinds.count("line_too_long") == 1
    assert "malformed_row" in kinds


def test_nul_bytes_marks_and_encodings(tmp_path: Path) -> None:
    items = read("csv", written(tmp_path, "a.csv", b"\xef\xbb\xbfid,text\n1,a\0b\n"))
    assert texts(items) == ["ab"]
    assert problems(items) == [("nul_bytes", "1 NUL bytes are removed")]
    data = "编号,内容\n1,人类社会发展的历史告诉我们，语言是思想的直接现实。\n"
    for encoding in ("gb18030", "utf-16"):
        assert texts(read("csv", written(tmp_path, "b.csv", data.encode(encoding)))) == [data.split(",")[2].strip()]


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,text\n1,a\n")
    told = problems(read("csv", path, text_field="body"))
    assert told == [("no_text_field", "it must have the column 'body'; got id, text; set text_field=KEY")]
    assert read("csv", written(tmp_path, "b.csv", "")) == []


def test_many_bad_rows_do_not_take_the_good_ones(tmp_path: Path) -> None:
    rows = "".join(f"{n},one\rtwo\n" for n in range(250)) + "".join(f"{n},good\n" for n in range(300))
    items = read("csv", written(tmp_path, "a.csv", "id,text\n" + rows))
    assert len(texts(items)) == 300
    assert problems(items)[0] == ("malformed_row", "line 2 has a line break in a field without quotes")
    assert len(problems(items)) == 250
