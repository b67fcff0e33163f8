"""`evaluate` of fine-tuned models: the task's figures with intervals, and two models told apart, or not."""

import json
from pathlib import Path

import pytest

from foundling.cli.main import main
from foundling.train.finetune import finetune
from tests.tasks.small import base_folder, recipe, write_rows

ROWS = [{"text": f"w{7 + i} w{8 + (i * 3) % 9} w{20 + i}", "label": "abc"[i % 3]} for i in range(24)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of examples; `good`, a model that knows them by heart; `poor`, one that has hardly learnt; `other`, one of
    other labels; `writer`, one of another task."""
    folder = tmp_path_factory.mktemp("models")
    base = base_folder(folder, "bert")
    train = str(write_rows(folder / "rows.jsonl", ROWS))
    finetune(recipe(folder / "good", base, {"kind": "classification", "train": train}, length="60 steps"))
    finetune(recipe(folder / "poor", base, {"kind": "classification", "train": train}, length="1 steps"))
    halves = str(write_rows(folder / "halves.jsonl", [row for row in ROWS if row["label"] != "c"]))
    finetune(recipe(folder / "other", base, {"kind": "classification", "train": halves}, length="1 steps"))
    pairs = str(write_rows(folder / "pairs.jsonl", [{"source": r["text"], "target": r["label"]} for r in ROWS]))
    writer = {"kind": "translation", "train": pairs, "max_target": 4, "beams": 1}
    finetune(recipe(folder / "writer", base_folder(folder, "seq2seq"), writer, length="1 steps"))
    return folder


def figures_of(folder: Path, *arguments: str) -> dict:  # type: ignore[type-arg]
    paths = [str(folder / one) if (folder / one).exists() else one for one in arguments]
    assert main(["evaluate", *paths, "--json", str(folder / "figures.json")]) == 0
    found: dict = json.loads((folder / "figures.json").read_text())  # type: ignore[type-arg]
    return found


def test_a_fine_tuned_model_is_measured_by_its_task(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = figures_of(folder, "good", "--data", "rows.jsonl")
    shown = capfd.readouterr().out
    assert (found["suite"], found["task"], found["examples"], found["accuracy"]) == ("task", "classification", 24, 1.0)
    assert found["intervals"]["accuracy"] == [1.0, 1.0]
    low, high = found["intervals"]["nll"]
    assert low < found["nll"] < high
    assert f"{low:.4f} to {high:.4f}" in shown
    for line in found["settings"].values():
        assert line in " ".join(shown.split())


def test_a_model_against_itself_is_noise(folder: Path) -> None:
    found = figures_of(folder, "poor", "poor", "--data", "rows.jsonl", "--compare")
    assert {one["verdict"] for one in found["figures"].values()} == {"noise"}
    assert found["figures"]["accuracy"]["low"] == found["figures"]["accuracy"]["high"] == 0


def test_a_good_model_is_better_than_one_that_guesses(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = figures_of(folder, "poor", "good", "--data", "rows.jsonl", "--compare")["figures"]
    assert found["accuracy"]["verdict"] == found["nll"]["verdict"] == "better"
    assert found["accuracy"]["b"] == 1 > found["accuracy"]["a"]
    assert found["nll"]["b"] < found["nll"]["a"], "less is better"
    row = next(line for line in capfd.readouterr().out.splitlines() if line.strip().startswith("accuracy"))
    assert row.split()[-1] == "better"
    turned = figures_of(folder, "good", "poor", "--data", "rows.jsonl", "--compare")["figures"]
    assert turned["accuracy"]["verdict"] == "worse"


def test_labels_that_a_model_never_learnt_are_told_and_wrong(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = figures_of(folder, "other", "--data", "rows.jsonl")
    assert "8 examples have labels that the model never learnt (c)" in capfd.readouterr().err
    assert found["f1_micro"] == pytest.approx(found["accuracy"]), "what is missed counts"
    assert found["accuracy"] <= 16 / 24


def test_taggers_of_two_schemes_are_compared(folder: Path, tmp_path: Path) -> None:
    rows = [{"tokens": [f"w{7 + i}", "w9"], "tags": ["B-a", "O"]} for i in range(6)]
    path = write_rows(tmp_path / "tagged.jsonl", rows)
    for scheme in ("BIO", "BIOES"):
        task = {"kind": "ner", "train": str(path), "scheme": scheme}
        finetune(recipe(tmp_path / scheme, folder / "bert", task, length="1 steps"))
    models = [str(tmp_path / scheme) for scheme in ("BIO", "BIOES")]
    assert "f1" in figures_of(folder, *models, "--data", str(path), "--compare")["figures"]


def test_speakers_that_read_other_lengths_are_compared_by_what_they_say(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    talk = [{"role": "user", "content": "w7"}, {"role": "assistant", "content": "w8 w9 w10 w11"}]
    path = write_rows(tmp_path / "talks.jsonl", [{"messages": talk}] * 3)
    base = base_folder(tmp_path, "gpt")
    for length in (8, 64):
        task = {"kind": "dialogue", "train": str(path), "max_length": length, "max_answer": 4}
        finetune(recipe(tmp_path / str(length), base, task, length="1 steps"))
    found = figures_of(tmp_path, "8", "64", "--data", "talks.jsonl", "--compare")["figures"]
    assert "chrf" in found
    assert "perplexity" not in found
    assert "likelihood: not compared, counted over other tokens by each" in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["good", "writer", "--compare"], "must be fine-tuned for the same task; got classification and translation"),
        (["good", "other", "--compare"], "must know the same labels; got known to one alone: c"),
        (["good", "--compare"], "--compare must be of two models; got 1"),
        (["good", "poor"], "add --compare if it is a second model"),
        (["good", "--suite", "perplexity"], "a model with a task's head answers examples"),
        (["bert", "--suite", "task"], "suite task is for a fine-tuned model"),
        (["good", "--compare", "poor", "--baseline", "ngram"], "--baseline stands beside one model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_does_not_fit_is_told(
    folder: Path, arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [str(folder / one) if (folder / one).is_dir() else one for one in arguments]
    assert main(["evaluate", *paths, "--data", str(folder / "rows.jsonl")]) == 2
    assert told in capfd.readouterr().err


def test_bad_rows_are_told_by_file_and_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_rows(folder / "bad.jsonl", [ROWS[0], {"text": "", "label": "a"}])
    assert main(["evaluate", str(folder / "good"), "--data", str(folder / "bad.jsonl")]) == 2
    assert "bad.jsonl:2: its text must be text with a character to read" in capfd.readouterr().err
    assert figures_of(folder, "good", "--data", "bad.jsonl", "bad_rows=skip")["examples"] == 1
