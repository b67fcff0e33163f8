"""Bad examples and bases for `foundling finetune`: exit status 2, one clear line, no traceback, no run folder; a row
that makes no example has a line of its own, with its place. Long documents are no fault."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling.cli.main import main
from tests.tasks.small import base_folder, write_rows

TEXTS = [{"text": f"w{7 + i} w{8 + i}", "label": "ab"[i % 2]} for i in range(6)]
SPANS = [{"text": "w7 w8 w9", "entities": [{"start": 3, "end": 5, "label": "x"}]}] * 4
TAGS = [{"tokens": ["w7", "w8"], "tags": ["B-x", "O"]}] * 4
ASKED = [
    {"id": f"q{i}", "question": "w7", "context": "w8 w9", "answers": {"text": ["w9"], "answer_start": [3]}}
    for i in range(4)
]
PAIRS = [{"source": f"w{7 + i}", "target": f"w{9 + i}"} for i in range(4)]


def run(
    tmp_path: Path, kind: str, rows: list[dict[str, Any]], bad: list[dict[str, Any]], name: str = "bert", **task: Any
) -> int:
    """The status of a run whose test file ends with the bad rows; of rows alone where there are none."""
    task |= {"kind": kind, "train": str(write_rows(tmp_path / "train.jsonl", rows))}
    if bad:
        task["test"] = str(write_rows(tmp_path / "test.jsonl", [*rows[:2], *bad]))
    train = {"length": "2 steps", "batch": "4 rows", "compile": False, "precision": "fp32"}
    data = {"name": "x", "out": str(tmp_path / "run"), "base": str(tmp_path / name), "task": task, "train": train}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return main(["finetune", str(tmp_path / "recipe.yaml")])


def told_of_one_fault(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The line that says why a run was refused; it left nothing behind."""
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = err.rstrip("\n").splitlines()
    told = lines[next(i for i, line in enumerate(lines) if line.startswith("foundling: ")) :]
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob(".*")), "nothing half-written"
    if len(told) == 1:
        return told[0]
    whole, row, way_out = told
    assert whole == f"foundling: {tmp_path / 'test.jsonl'}: 1 of 3 rows make no example"
    assert way_out == "  mend them, or leave them out: task.bad_rows=skip"
    return row


@pytest.mark.parametrize(
    ("kind", "rows", "bad", "said"),
    [
        ("classification", TEXTS, [{"text": "w7", "label": "new"}],
         "every label must be among those of train (a, b); got in test new 1"),
        ("relation", [{"text": "<e1>w7</e1> <e2>w8</e2>", "label": x} for x in "abab"],
         [{"text": "<e1>w7</e1> <e2>w8</e2>", "label": "new"}], "got in test new 1"),
        ("ner", SPANS, [{"text": "w7", "entities": [{"start": 3, "end": 5, "label": "x"}]}],
         "test.jsonl:3: its entity (3, 5, 'x') must lie in its text, which has 2 characters"),
        ("ner", TAGS, [{"tokens": ["w7"], "tags": ["O", "O"]}],
         "test.jsonl:3: it must have a tag for each token; got 2 for 1"),
        ("ner", TAGS, [{"tokens": ["w7"], "tags": ["B-new"]}], "got in test new 1"),
        ("qa", ASKED, [{**ASKED[0], "id": "q77", "answers": {"text": ["w12"], "answer_start": [3]}}],
         "test.jsonl:3: the answer 'w12' of question q77 must stand in its context at 3"),
        ("classification", TEXTS, [{"text": " \n", "label": "a"}],
         "test.jsonl:3: its text must be text with a character to read"),
        ("ner", SPANS, [{"text": "", "entities": []}], "test.jsonl:3: its text must have a word"),
        ("qa", ASKED, [{**ASKED[0], "context": ""}], "test.jsonl:3: its context must be text"),
        ("translation", PAIRS, [{"source": "w7", "target": " "}], "test.jsonl:3: its target must be text"),
        ("classification", [{"text": "w7", "label": "a"}] * 4, [], "at least 2 labels to tell apart; got a 4 in 4"),
        ("ner", [{"tokens": ["w7"], "tags": ["O"]}] * 4, [], "at least 1 label"),
    ],
)  # fmt: skip
def test_one_fault_in_the_examples(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    rows: list[dict[str, Any]],
    bad: list[dict[str, Any]],
    said: str,
) -> None:
    name = "gpt" if kind == "translation" else "bert"
    base_folder(tmp_path, name)
    assert run(tmp_path, kind, rows, bad, name) == 2
    assert said in told_of_one_fault(tmp_path, capfd)


def test_a_base_without_a_tokenizer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = base_folder(tmp_path, "bert")
    (base / "tokenizer.json").unlink()
    assert run(tmp_path, "classification", TEXTS, []) == 2
    assert f"the base must hold its tokenizer (tokenizer.json); got none in {base}" in told_of_one_fault(
        tmp_path, capfd
    )


LONG = "w7 w8 w9 " * 12_000
"""Of more than 100,000 characters."""


@pytest.mark.parametrize(
    ("kind", "rows", "long"),
    [
        ("classification", TEXTS, {"text": LONG, "label": "a"}),
        ("ner", SPANS, {"text": LONG, "entities": [{"start": len(LONG) - 3, "end": len(LONG) - 1, "label": "x"}]}),
        ("qa", ASKED, {"id": "q9", "question": "w7", "context": f"{LONG}w10",
                       "answers": {"text": ["w10"], "answer_start": [len(LONG)]}}),
        ("summarization", [{"document": row["source"], "summary": row["target"]} for row in PAIRS],
         {"document": LONG, "summary": "w7"}),
    ],
)  # fmt: skip
def test_a_document_of_100_000_characters_is_learnt_and_answered(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, rows: list[dict[str, Any]], long: dict[str, Any]
) -> None:
    assert len(LONG) > 100_000
    name = "gpt" if kind == "summarization" else "bert"
    base_folder(tmp_path, name)
    task = {"max_target": 8} if kind == "summarization" else {}
    assert run(tmp_path, kind, [*rows[:3], long], [long], name, **task) == 0
    assert "Traceback" not in capfd.readouterr().err
    answers = (tmp_path / "run" / "answers-test.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(answers) == 3
    assert json.loads(answers[2])["answer"]
