"""Notes add up to the same whatever the order, and what could not be used is told by line."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundling.corpus.document import Document, Drop, Size
from foundling.corpus.notes import StepNotes
from foundling.corpus.segment import take
from foundling.corpus.tally import Problems

EVENTS = [
    *(("kept", i) for i in range(20)),
    *(("changed", i) for i in range(40)),
    *(("found", i) for i in range(5)),
    *(("drop", i) for i in range(30)),
]


def noted(events: list[tuple[str, int]]) -> StepNotes:
    notes = StepNotes()
    for kind, i in events:
        document = Document(f"in.jsonl:{i}", f"text {i}", "s", "d")
        if kind == "kept":
            notes.kept(Size(i, 2 * i))
        elif kind == "drop":
            notes.drop(Drop("short" if i % 2 else "long", f"{i}"), document.id, document.text)
        else:
            text = f"text {i}!" if kind == "changed" else document.text
            take(notes, document, document.with_text(text, marks=i), Size(6, 2))
    return notes


@given(st.permutations(EVENTS), st.lists(st.integers(0, len(EVENTS))).map(sorted))
def test_notes_merge_in_any_order(events: list[tuple[str, int]], cuts: list[int]) -> None:
    merged = StepNotes()
    for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        merged.merge(json.loads(json.dumps(noted(events[start:end]).plain())))
    whole = noted(EVENTS).figures()
    assert merged.figures() == whole
    assert list(merged.figures()["dropped"]) == ["long", "short"]
    assert whole["num_documents"] == 20 + 40 + 5
    assert whole["num_words"] == 2 * sum(range(20)) + 2 * (40 + 5)
    assert (whole["num_changed"], len(whole["changes"])) == (40, 10)
    assert whole["found"] == {"marks": sum(range(40)) + sum(range(5))}
    assert whole["dropped"] == {"long": 15, "short": 15}
    assert [len(rows) for rows in whole["examples"].values()] == [5, 5]


def test_problems_are_told_once_a_file_and_listed_by_line(caplog: pytest.LogCaptureFixture) -> None:
    problems = Problems()
    with caplog.at_level(logging.WARNING, logger="foundling"):
        for line in (3, 4, 5, 9):
            problems.add("a.jsonl", "malformed_line", f"line {line} is not a JSON object", line, 1)
        problems.add("a.jsonl", "not_utf8", "7 bytes are not UTF-8", None, 7)
        problems.add("b.jsonl", "malformed_line", "line 2 is not a JSON object", 2, 1)
        problems.end()
    assert [record.getMessage() for record in caplog.records] == [
        "a.jsonl: 4 lines left out: not a JSON object (lines 3-5, 9)",
        "a.jsonl: 7 bytes are not UTF-8",
        "b.jsonl: line 2 is not a JSON object",
    ]
    assert problems.kinds["malformed_line"]["lines"] == {"a.jsonl": "3-5, 9", "b.jsonl": "2"}
    assert problems.kinds["not_utf8"] == {
        "meaning": problems.kinds["not_utf8"]["meaning"],
        "count": 7,
        "num_files": 1,
        "examples": ["a.jsonl: 7 bytes are not UTF-8"],
        "lines": {},
    }
