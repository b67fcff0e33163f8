"""JSON lines, JSON and SQuAD: what was written is read, and what is wrong with a row is told with its place."""

import json
from pathlib import Path
from typing import Any

import pytest

from foundling.core.errors import UserError
from foundling.corpus.readers.base import MAX_DOCUMENT_BYTES
from tests.tasks.formats.made import faults, read, rows, written

ROWS: list[dict[str, Any]] = [
    {"text": "a “b”", "n": 1},
    {"text": "字\u2028", "tags": ["x", None]},
    {"text": "", "of": {"a": 1.5}},
]


def test_lines_are_rows(tmp_path: Path) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).replace("\n", "\r\n\n", 1)
    items = read("jsonl", written(tmp_path, "a.jsonl", text))
    assert rows(items) == ROWS
    assert [item.where for item in items] == ["1", "3", "4"]


def test_a_malformed_line_is_a_fault_of_its_own(tmp_path: Path) -> None:
    lines = [
        b'{"text": "a"}',
        b'{"text": ',
        b"[1]",
        b'{"text": "\xff\xfe"}',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"b": 1}',
    ]
    items = read("jsonl", written(tmp_path, "a.jsonl", b"\n".join(lines)), encoding="utf-8")
    assert rows(items) == [{"text": "a"}, {"b": 1}]
    told = dict(faults(items))
    assert list(told) == ["2", "3", "4", "5", "6"]
    for where, reason in {
        "2": "not JSON: Expecting value",
        "3": "not a JSON object",
        "4": "2 bytes",
        "5": "half a character",
    }.items():
        assert reason in told[where]
    assert told["6"] == "it is nested too deeply"


def test_a_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    assert rows(read("jsonl", written(tmp_path, "a.jsonl", '{"text": "\\ud83d\\ude00"}'))) == [{"text": "😀"}]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_line_that_is_too_long_is_told_and_not_kept(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(b'{"text": "a"}\n{"text": "')
        for _ in range(MAX_DOCUMENT_BYTES // (1 << 20)):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"text": "b"}\n')
    items = read(kind, path, **({"header": False, "columns": ("one",)} if kind == "csv" else {}))
    assert len(rows(items)) == 2
    ((where, reason),) = faults(items)
    assert where == "2"
    assert "32 MiB" in reason or "too long" in reason


def test_a_legacy_encoding_is_guessed_or_told(tmp_path: Path) -> None:
    text = "".join(json.dumps({"text": f"春眠不觉晓，处处闻啼鸟 {n}"}, ensure_ascii=False) + "\n" for n in range(9))
    path = written(tmp_path, "a.jsonl", text.encode("gb18030"))
    assert rows(read("jsonl", path))[3] == {"text": "春眠不觉晓，处处闻啼鸟 3"}
    torn = read(
        "jsonl", written(tmp_path, "b.jsonl", text.encode("gb18030") + b'{"text": "\x81"}\n'), encoding="gb18030"
    )
    assert len(rows(torn)) == 9
    assert faults(torn) == [("10", "the line holds what is not gb18030")]
    with pytest.raises(UserError, match="must be text; got it is binary"):
        read("jsonl", written(tmp_path, "c.jsonl", bytes(1000)))


@pytest.mark.parametrize("text", [json.dumps(ROWS), json.dumps({"version": 1, "data": ROWS, "more": []}, indent=2)])
def test_elements_are_rows(text: str, tmp_path: Path) -> None:
    items = read("json", written(tmp_path, "a.json", text))
    assert rows(items) == ROWS
    assert [item.where for item in items] == ["element 1", "element 2", "element 3"]


def test_a_faulty_element_is_told_with_its_line(tmp_path: Path) -> None:
    text = b'[\n{"a": 1},\n{"a": tru},\n{"a": "\xff"},\n[2],\n{"a": "\\udc00"},\n{"a": 5}\n]'
    items = read("json", written(tmp_path, "a.json", text))
    assert rows(items) == [{"a": 1}, {"a": 5}]
    told = dict(faults(items))
    assert list(told) == ["element 2", "element 3", "element 4", "element 5"]
    assert told["element 2"].startswith("it (line 3) is left out: ")
    assert told["element 3"] == told["element 5"] == "it holds bytes that are not UTF-8, or half a character"
    assert told["element 4"] == "it is no object"


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ('{"train": [{"a": 1}], "test": []}', "an object with train, test"),
        ('{"data": {"a": 1}}', "an object with data"),
        ("3", "no list"),
        ("", "no list"),
    ],
)
def test_json_of_another_shape_is_refused(text: str, got: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"a list of objects.*got {got}"):
        read("json", written(tmp_path, "a.json", text))


def test_an_empty_list_has_no_rows(tmp_path: Path) -> None:
    assert read("json", written(tmp_path, "a.json", '{"data": []}')) == []


def squad(*questions: Any, **more: Any) -> str:
    return json.dumps(
        {
            "version": "v2.0",
            "data": [{"title": "T", "paragraphs": [{"context": "as she said", "qas": questions, **more}]}],
        }
    )


def test_questions_are_rows(tmp_path: Path) -> None:
    answered = {
        "id": "q1",
        "question": "who",
        "answers": [{"text": "she", "answer_start": 3}, {"text": "as", "answer_start": 0}],
    }
    unanswerable = {"id": 2, "question": "why", "answers": [], "is_impossible": True, "plausible_answers": []}
    asked = {"id": "q3", "question": "when"}
    items = read("squad", written(tmp_path, "a.json", squad(answered, unanswerable, asked)))
    shared = {"title": "T", "context": "as she said"}
    assert rows(items) == [
        {
            **shared,
            "id": "q1",
            "question": "who",
            "answers": {"text": ["she", "as"], "answer_start": [3, 0]},
            "is_impossible": False,
        },
        {**shared, "id": 2, "question": "why", "answers": {"text": [], "answer_start": []}, "is_impossible": True},
        {**shared, "id": "q3", "question": "when", "answers": None, "is_impossible": False},
    ]
    assert [item.where for item in items] == ["question q1", "question 2", "question q3"]


@pytest.mark.parametrize(
    ("question", "where", "reason"),
    [
        ({"id": "q", "question": "a", "answers": [{"text": "she"}]}, "question q", "its answers must be"),
        (
            {"id": "q", "question": "a", "answers": [{"text": "she", "answer_start": "3"}]},
            "question q",
            "its answers must be",
        ),
        ({"id": "q", "question": "a", "answers": {"text": ["she"]}}, "question q", "its answers must be"),
        ({"id": "q"}, "question q", "it has no question"),
        ("who", "article 1, paragraph 1, question 1", "it has no question"),
    ],
)
def test_a_faulty_question_is_named(question: Any, where: str, reason: str, tmp_path: Path) -> None:
    good = {"id": "good", "question": "who", "answers": []}
    items = read("squad", written(tmp_path, "a.json", squad(question, good)))
    assert [row["id"] for row in rows(items)] == ["good"]
    ((told_where, told_reason),) = faults(items)
    assert told_where == where
    assert told_reason.startswith(reason)


def test_a_paragraph_or_article_of_another_shape_is_named(tmp_path: Path) -> None:
    data = {"data": [{"paragraphs": 3}, {"paragraphs": [{"context": "a"}, 4]}, {"paragraphs": []}]}
    items = read("squad", written(tmp_path, "a.json", json.dumps(data)))
    assert [where for where, _ in faults(items)] == ["article 1", "article 2, paragraph 1", "article 2, paragraph 2"]
