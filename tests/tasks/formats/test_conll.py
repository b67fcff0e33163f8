"""Columns of tokens and tags."""

from pathlib import Path

import pytest

from tests.tasks.formats.made import faults, read, rows, settled, written

CONLL03 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
-DOCSTART- -X- -X- O
Blackburn NNP I-NP I-PER
"""


def test_sentences_are_rows_with_the_place_of_their_first_line(tmp_path: Path) -> None:
    items = read("conll", written(tmp_path, "a.conll", CONLL03))
    assert [item.where for item in items] == ["3", "6", "8"]
    assert rows(items) == [
        {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
        {"tokens": ["Peter"], "tags": ["B-PER"]},
        {"tokens": ["Blackburn"], "tags": ["I-PER"]},
    ]


def test_columns_are_settable(tmp_path: Path) -> None:
    items = read("conll", written(tmp_path, "a.conll", CONLL03), token_column=-3, tag_column=1)
    assert rows(items)[0] == {"tokens": ["NNP", "VBZ"], "tags": ["NNP", "VBZ"]}
    assert faults(read("conll", written(tmp_path, "a.conll", CONLL03), tag_column=4))[0] == (
        "3",
        "line 3 has no column 4 (tag_column); it has 4",
    )


def test_tabs_part_columns_and_blanks_stay_in_them(tmp_path: Path) -> None:
    text = "New York\tB-LOC\r\n\u3000\tO\r\n\t\r\nb\tO\r\n"
    assert rows(read("conll", written(tmp_path, "a.conll", text))) == [
        {"tokens": ["New York", "\u3000"], "tags": ["B-LOC", "O"]},
        {"tokens": ["b"], "tags": ["O"]},
    ]


def test_a_hash_is_a_token_where_it_has_a_tag_and_else_a_comment(tmp_path: Path) -> None:
    text = "# id 1 of 9\n#tag\tO\n#\tB-X\na\tO\n\n# a comment alone\n\n#only\tO\n\n# x\n# y\nb\tO\n"
    path = written(tmp_path, "a.conll", text)
    assert [row["tokens"] for row in rows(read("conll", path))] == [["#tag", "#", "a"], ["#only"], ["b"]]
    assert not faults(read("conll", path))
    assert [row["tokens"] for row in rows(read("conll", path, comments=True))] == [["a"], ["b"]]
    told = faults(read("conll", path, comments=False))
    assert all("comments=true leaves lines out" in reason for _, reason in told[1:])
    assert [where for where, _ in told] == ["1", "6", "10"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("a O\nb\n", "line 2 has 1 column, and its sentence 2"),
        ("a x O\nb O\n", "line 2 has 2 columns, and its sentence 3"),
        ("a\n", "line 1 has 1 column, and its sentence 2"),
        ("a\tO\n\tO\n", "line 2 has no token"),
        ("a\tO\nb\t\n", "line 2 has no tag"),
    ],
)
def test_a_faulty_sentence_is_told_with_its_line(lines: str, reason: str, tmp_path: Path) -> None:
    items = read("conll", written(tmp_path, "a.conll", lines + ("\nlast\tO\n" if "\t" in lines else "\nlast O\n")))
    assert faults(items) == [("1", reason)]
    assert rows(items) == [{"tokens": ["last"], "tags": ["O"]}]


def test_torn_bytes_take_their_sentence(tmp_path: Path) -> None:
    items = read("conll", written(tmp_path, "a.conll", "é O\n".encode() * 9 + b"\n\xff O\nb O\n\nlast O\n"))
    assert faults(items) == [("11", "line 11: 1 bytes of the line are not UTF-8")]
    assert len(rows(items)) == 2


def test_universal_dependencies_have_columns_of_their_own(tmp_path: Path) -> None:
    rest = "\t_" * 6
    words = ["1-2 im _ _", "1 in in ADP", "2 dem der DET", "3 Haus Haus NOUN", "3.1 x _ X"]
    text = "# text = im Haus\n" + "".join("\t".join(word.split()) + rest + "\n" for word in words)
    path = written(tmp_path, "a.conllu", text)
    assert rows(read("conll", path)) == [{"tokens": ["in", "dem", "Haus"], "tags": ["ADP", "DET", "NOUN"]}]
    config = settled("conll", path)
    assert (config.token_column, config.tag_column) == (1, 3)
