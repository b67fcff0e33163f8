"""What `predict` reads from standard input: JSON or plain lines, whole characters, a byte order mark or none; and what
may be told it of the task."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from foundling.cli.main import main
from foundling.cli.predict import _lines
from foundling.core.errors import UserError
from foundling.serve.load import load
from foundling.train.finetune import finetune
from tests.tasks.small import base_folder, recipe, write_rows


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (b'{"text": "a"}\n\nb\n', [{"text": "a"}, "b"]),
        (b'\xef\xbb\xbf{"text": "a"}\n', [{"text": "a"}]),
        ("好\n".encode(), ["好"]),
    ],
)
def test_lines_are_json_or_texts(given: bytes, read: list[Any]) -> None:
    assert [data for _, data in _lines(io.BytesIO(given))] == read


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (b'a\n{"text": \n', "line 2 must be JSON"),
        (b"\xff\n", "line 1 must be UTF-8 text"),
        (b'{"text": "ok \\ud83d"}\n', "line 1 must hold whole characters; got half of a surrogate pair"),
    ],
)
def test_a_line_that_is_neither_is_told_by_number(given: bytes, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        list(_lines(io.BytesIO(given)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that has hardly learnt, and examples whose text has a name of their own."""
    folder = tmp_path_factory.mktemp("models")
    rows = [{"text": f"w{7 + i} w{8 + i}", "label": "ab"[i % 2]} for i in range(8)]
    given = {"kind": "classification", "train": str(write_rows(folder / "rows.jsonl", rows))}
    finetune(recipe(folder / "run", base_folder(folder, "bert"), given, length="1 steps"))
    write_rows(folder / "reviews.jsonl", [{"review": row["text"]} for row in rows])
    return folder


def answers_of(folder: Path, *settings: str) -> list[dict[str, Any]]:
    out = folder / "answers.jsonl"
    asked = ["predict", str(folder / "run"), "--input", str(folder / "reviews.jsonl"), "--out", str(out)]
    assert main([*asked, "task.fields={text: review}", *settings]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_the_task_s_settings_can_be_told_for_these_answers(folder: Path) -> None:
    plain, unsure = answers_of(folder), answers_of(folder, "task.abstain_below=0.99")
    assert {one["label"] for one in plain} <= {"a", "b"}
    assert {one["label"] for one in unsure} == {None}
    assert [one["probabilities"] for one in unsure] == [one["probabilities"] for one in plain]


def test_bf16_answers_nearly_the_same(folder: Path) -> None:
    plain, rounded = answers_of(folder), answers_of(folder, "--precision", "bf16")
    for one, other in zip(plain, rounded, strict=True):
        assert other["probabilities"]["a"] == pytest.approx(one["probabilities"]["a"], abs=0.02)
    assert plain != rounded


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("abstain_below=0.5", "a setting must be one of the task, task.KEY=VALUE; got abstain_below=0.5"),
        (
            "task.class_weights=balanced",
            "answering can change abstain_below, bad_rows, fields, format; got class_weights",
        ),
        ("task.beams=2", "answering can change abstain_below, bad_rows, fields, format; got beams"),
        ("task.abstain_below=2", "abstain_below"),
    ],
)
def test_what_answering_cannot_change_is_told(
    folder: Path, setting: str, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = ["predict", str(folder / "run"), "--input", str(folder / "rows.jsonl")]
    assert main([*asked, setting]) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert fault in told
    assert "Traceback" not in told


def test_what_is_kept_is_not_written_over(folder: Path) -> None:
    out = folder / "kept.jsonl"
    assert (
        main(["predict", str(folder / "run"), "--input", str(folder / "rows.jsonl"), "--keep", "--out", str(out)]) == 0
    )
    kept = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    true = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["example"] for row in kept] == true
    assert [row["answer"] for row in kept] == answers_of(folder)


def test_a_row_that_makes_no_example_is_told_by_its_place_before_anything_is_answered(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, out = folder / "bad.jsonl", folder / "bad-answers.jsonl"
    bad.write_text('{"text": "w7"}\n{"text": ""}\n{"text": "w8"}\n')
    asked = ["predict", str(folder / "run"), "--input", str(bad), "--keep", "--out", str(out)]
    assert main(asked) == 2
    told = capfd.readouterr().err
    assert "bad.jsonl:2" in told, told
    assert "1 of 3 rows make no example" in told
    assert not out.exists()
    assert main([*asked, "task.bad_rows=skip"]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["example"]["text"] for line in lines] == ["w7", "", "w8"]
    assert "character to read" in lines[1]["answer"]["left_out"]
    bad.write_text("")
    assert main(asked) == 2
    assert "must hold an example" in capfd.readouterr().err


def test_a_line_that_makes_no_example_is_told_by_its_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'w7 w8\n\n{"text": " "}\n')))
    assert main(["predict", str(folder / "run"), "--input", "-"]) == 2
    assert "line 3: its text must be text with a character to read" in capfd.readouterr().err


def test_one_example_alone_is_not_taken_for_several(folder: Path) -> None:
    model = load(folder / "run")
    for given in ("w7 w8", {"text": "w7"}):
        with pytest.raises(UserError, match="examples must be a list of them"):
            model.predict(given)
