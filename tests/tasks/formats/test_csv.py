"""Tables: header, delimiter and quotes are guessed or told, and a row that is none is told with its line."""

import csv
import io
from pathlib import Path

import pytest

from foundling.core.errors import UserError
from tests.tasks.formats.made import faults, read, rows, settled, written

TEXTS = ["plain words", 'with "quotes", a comma', "two\nlines; and a semicolon", "tab\there", "字，字", " spaces "]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_was_written_is_read(delimiter: str, line_end: str, tmp_path: Path) -> None:
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter=delimiter, lineterminator=line_end)
    table.writerows([("text", "label"), *((text, n) for n, text in enumerate(TEXTS))])
    items = read("csv", written(tmp_path, "a.csv", out.getvalue()))
    assert rows(items) == [{"text": text, "label": str(n)} for n, text in enumerate(TEXTS)]
    assert [item.where for item in items] == ["2", "3", "4", "6", "7", "8"]  # each row's first line


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("premise\thypothesis\tgold", True),
        ("sentence\tlabel", True),
        ("1\ta film that one may see", False),
        ("a film that one may see\t1", False),
        ("where is it\tquestion", False),
    ],
)
def test_the_header_is_guessed(first: str, header: bool, tmp_path: Path) -> None:
    text = first + "\n" + "a row of words\tquestion\tx\n" * 3
    text = "\n".join("\t".join(line.split("\t")[: first.count("\t") + 1]) for line in text.split("\n"))
    assert settled("csv", written(tmp_path, "a.tsv", text)).header is header


def test_without_a_header_it_is_told_how_to_name_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "1,good film\n0,bad film\n1\n")
    with pytest.raises(
        UserError, match=r"a.csv, line 1 must name the columns; got the values '1', 'good film'; .*columns: \["
    ):
        read("csv", path)
    items = read("csv", path, columns=("label", "text"))
    assert rows(items) == [{"label": "1", "text": "good film"}, {"label": "0", "text": "bad film"}]
    assert faults(items) == [("3", "it has 1 fields, and there are 2 columns")]
    with pytest.raises(UserError, match="must have the 3 columns that are named; got 2"):
        read("csv", path, columns=("label", "text", "more"))


def test_given_names_stand_instead_of_a_header(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "label,text\n1,good film\n")
    assert rows(read("csv", path, columns=("label", "text"))) == [{"label": "1", "text": "good film"}]
    assert rows(read("csv", path, columns=("y", "x"), header=True)) == [{"y": "1", "x": "good film"}]
    with pytest.raises(UserError, match="name each column differently"):
        read("csv", written(tmp_path, "b.csv", "text,text\na,b\n"), header=True)


QUOTED_BY_NO_ONE = ['"Yes', 'he said "no', "plain", 'it ends here"', 'a "b" c', '"both"']


def test_quotes_are_characters_where_lines_are_whole_only_so(tmp_path: Path) -> None:
    text = "text\tlabel\n" + "".join(f"{one}\t{n}\n" for n, one in enumerate(QUOTED_BY_NO_ONE))
    path = written(tmp_path, "a.tsv", text)
    assert settled("csv", path).quotes is False
    assert [row["text"] for row in rows(read("csv", path))] == QUOTED_BY_NO_ONE
    told = read("csv", path, quotes=True)
    assert len(rows(told)) < len(QUOTED_BY_NO_ONE)


def test_quotes_enclose_fields_where_either_reading_gives_whole_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", 'text\tlabel\n"said ""no"""\t0\n"b"\t1\n')
    assert settled("csv", path).quotes is True
    assert [row["text"] for row in rows(read("csv", path))] == ['said "no"', "b"]


def test_torn_bytes_are_told_with_their_line(tmp_path: Path) -> None:
    data = b'text,label\na,1\n"b\n\xff\xfe",0\nc\0,1\nd,0\n' + "é,1\n".encode() * 20
    items = read("csv", written(tmp_path, "a.csv", data))
    assert [row["text"] for row in rows(items)][:2] == ["a", "d"]
    assert faults(items) == [
        ("3", "line 4 has bytes that are not UTF-8, or NULs"),
        ("5", "line 5 has bytes that are not UTF-8, or NULs"),
    ]


def test_torn_bytes_behind_an_unclosed_quote_are_told_too(tmp_path: Path) -> None:
    data = b'text,label\n"a,1\nb\xff,0\n' + "é,1\n".encode() * 20
    items = read("csv", written(tmp_path, "a.csv", data), quotes=True)
    assert dict(faults(items)) == {
        "2": "it opens a quote that is never closed",
        "3": "line 3 has bytes that are not UTF-8, or NULs",
    }
    assert len(rows(items)) == 20


def test_rows_without_a_word_are_told_but_for_those_behind_the_last(tmp_path: Path) -> None:
    items = read("csv", written(tmp_path, "rows.csv", 'text\ngood\n""\n\nbad\n""\n'), header=True)
    assert [row["text"] for row in rows(items)] == ["good", "bad"]
    assert faults(items) == [("3", "all its fields are empty")]
