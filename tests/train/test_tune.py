"""Tuning: the best of a rung go on from their checkpoints, and what is best is held against what was there."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.train import tune as module
from foundling.train.pretrain import pretrain
from foundling.train.recipe import recipe_from
from foundling.train.tune import tune, verdict_of
from foundling.train.tune_recipe import TuneRecipe
from foundling.train.tune_report import Outcome
from tests.tasks.small import base_folder, write_rows
from tests.tiny import recipe_data


@pytest.fixture
def recipe_file(tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path) -> Path:
    data = recipe_data(tiny_corpus, tiny_tokenizer, tmp_path / "unused", **{"optimizer.lr": 1e-6})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return tmp_path / "tiny.yaml"


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices come one after another: which of them is drawn is Optuna's affair."""
    real, drawn = module._suggested, Counter[str]()

    def suggested(trial: Any, key: str, search: Any) -> Any:
        found = real(trial, key, search)
        if not search.choices:
            return found
        drawn[key] += 1
        return search.choices[(drawn[key] - 1) % len(search.choices)]

    monkeypatch.setattr(module, "_suggested", suggested)


def made(recipe_file: Path, **changes: Any) -> TuneRecipe:
    data = {
        "name": "search",
        "out": str(recipe_file.parent / "search"),
        "recipe": str(recipe_file),
        "search": {"optimizer.lr": {"choices": [1e-6, 1e-2]}, "optimizer.weight_decay": {"low": 0.0, "high": 0.1}},
        "trials": 4,
        "halving": {"factor": 2, "rungs": 3},
        "seeds": 2,
        **changes,
    }
    found: TuneRecipe = validate(TuneRecipe, data, "tune")
    return found


@pytest.mark.usefixtures("in_turn")
def test_good_settings_are_found_and_beat_the_recipe(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tune(made(recipe_file))
    folder = recipe_file.parent / "search"
    assert len(outcome.trials) == 4
    assert sorted(trial.steps for trial in outcome.trials) == [2, 2, 4, 8]
    assert outcome.best.settings["optimizer.lr"] == 1e-2
    assert outcome.verdict == "better"
    assert max(outcome.best_values) < min(outcome.default_values)
    best = yaml.safe_load((folder / "best.yaml").read_text(encoding="utf-8"))
    assert best["optimizer"]["lr"] == 1e-2
    assert json.loads((folder / "tune.json").read_text())["verdict"] == "better"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "better than the recipe as it is" in page
    assert not list(folder.glob("trial-*"))


def test_a_trial_that_went_on_is_one_that_never_stopped(recipe_file: Path) -> None:
    outcome = tune(made(recipe_file))
    data = yaml.safe_load(recipe_file.read_text(encoding="utf-8"))
    data["optimizer"] |= {key.split(".")[1]: value for key, value in outcome.best.settings.items()}
    data["out"] = str(recipe_file.parent / "whole")
    whole = pretrain(recipe_from(data))
    assert whole.summary["valid"]["bits_per_byte"] == outcome.best.value


def test_a_killed_search_goes_on(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    begun: list[dict[str, Any]] = []
    real = module._advance

    def advance(recipe: TuneRecipe, trial: Any, part: int) -> None:
        ran.append(trial.number)
        begun.append(trial.settings)
        if len(ran) == 3:
            raise KeyboardInterrupt
        real(recipe, trial, part)

    monkeypatch.setattr(module, "_advance", advance)
    given = made(recipe_file, halving=None, trials=4)
    with pytest.raises(KeyboardInterrupt):
        tune(given)
    monkeypatch.setattr(module, "_advance", real)
    outcome = tune(given)
    assert len([trial for trial in outcome.trials if not trial.fault]) == len(outcome.trials) == 4
    assert all(settings in [trial.settings for trial in outcome.trials] for settings in begun), "tried again"
    with pytest.raises(UserError, match="study of the same recipe and search"):
        tune(made(recipe_file, search={"optimizer.lr": {"choices": [1e-3]}}))


def test_a_trial_with_a_fault_is_told_and_the_search_goes_on(
    recipe_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = {"train.batch": {"choices": ["8 rows", "90000 rows"]}}
    outcome = tune(made(recipe_file, search=search, halving=None, trials=6))
    faults = [trial for trial in outcome.trials if trial.fault]
    assert faults
    assert all("must fill one batch" in trial.fault for trial in faults)
    assert outcome.best.settings == {"train.batch": "8 rows"}
    assert outcome.verdict == "noise"


def test_a_key_that_the_recipe_has_not_is_told_before_anything_runs(recipe_file: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'lr'"):
        tune(made(recipe_file, search={"optimizer.lrr": {"choices": [1e-3]}}))


def test_a_fine_tuning_is_searched_by_dev(tmp_path: Path) -> None:
    rows = [{"text": f"w{7 + i} w{8 + (i * 3) % 9}", "label": "ab"[i % 2]} for i in range(10)]
    path = str(write_rows(tmp_path / "train.jsonl", rows))
    data = {
        "name": "tiny", "base": str(base_folder(tmp_path, "bert")),
        "task": {"kind": "classification", "train": path, "dev": path},
        "optimizer": {"kind": "adamw", "lr": 1e-7}, "schedule": {"kind": "constant", "warmup": 0},
        "train": {"length": "24 steps", "batch": "10 rows", "compile": False, "precision": "fp32"},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(data))
    search = {"optimizer.lr": {"choices": [1e-7, 3e-3]}}
    outcome = tune(made(tmp_path / "tiny.yaml", search=search, halving=None, trials=4))
    assert outcome.best.settings == {"optimizer.lr": 3e-3}
    assert outcome.sign == -1
    assert min(-value for value in outcome.best_values) > 0.9


@pytest.mark.parametrize(
    ("best", "default", "verdict"),
    [
        ([1.0, 1.01, 0.99], [2.0, 2.01, 1.99], "better"),
        ([2.0, 2.01, 1.99], [1.0, 1.01, 0.99], "worse"),
        ([1.0, 2.0, 3.0], [1.5, 2.5, 3.5], "noise"),
        ([1.0, 1.0], [1.0, 1.0], "noise"),
    ],
)
def test_verdicts(best: list[float], default: list[float], verdict: str) -> None:
    assert verdict_of(best, default) == verdict


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({}, "at least 1"),
        ({"a": {}}, "either low and high, or choices"),
        ({"a": {"low": 2, "high": 1}}, "low must be below high"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "log needs a low above 0"),
    ],
)
def test_searches_that_say_nothing(search: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        validate(TuneRecipe, {"name": "x", "recipe": "x.yaml", "search": search}, "tune")


@pytest.mark.usefixtures("in_turn")
def test_a_whole_run_of_fewer_steps_may_be_best(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(recipe: TuneRecipe, trial: Any, part: int) -> None:
        trial.value, trial.steps = (1.0, 2) if trial.settings["train.batch"] == "16 rows" else (2.0, 8)

    def held(recipe: TuneRecipe, trials: list[Any], best: Any) -> Outcome:
        return Outcome(trials, best, [1.0, 1.0], [1.0, 1.0], "noise", "figure", 1.0)

    monkeypatch.setattr(module, "_advance", advance)
    monkeypatch.setattr(module, "_held_against_default", held)
    search = {"train.batch": {"choices": ["4 rows", "16 rows"]}}
    outcome = tune(made(recipe_file, search=search, halving=None, trials=8))
    assert outcome.best.settings == {"train.batch": "16 rows"}


def test_a_new_best_is_held_anew_against_the_recipe(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = {"optimizer.lr": {"choices": [1e-6, 1e-2]}}
    monkeypatch.setattr(module, "_suggested", lambda *_: 1e-6)
    tune(made(recipe_file, search=search, halving=None, trials=1))
    monkeypatch.setattr(module, "_suggested", lambda *_: 1e-2)
    found = tune(made(recipe_file, search=search, halving=None, trials=2))
    assert found.best.settings["optimizer.lr"] == 1e-2
    assert max(found.best_values) < min(found.default_values)
    text = recipe_file.read_text(encoding="utf-8")
    recipe_file.write_text(text + "seed: 5\n" if "seed:" not in text else text.replace("seed: ", "seed: 5"))
    with pytest.raises(UserError, match="what the recipe's file held before"):
        tune(made(recipe_file, search=search, halving=None, trials=2))


def test_a_search_that_goes_on_draws_no_settings_twice(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(recipe: TuneRecipe, trial: Any, part: int) -> None:
        trial.value, trial.steps = 1.0, 2

    monkeypatch.setattr(module, "_advance", advance)
    monkeypatch.setattr(
        module, "_held_against_default", lambda r, t, b: Outcome(t, b, [1.0, 1.0], [1.0, 1.0], "noise", "figure", 1.0)
    )
    keys: dict[str, Any] = {"search": {"optimizer.weight_decay": {"low": 0.0, "high": 0.1}}, "halving": None}
    tune(made(recipe_file, trials=2, **keys))
    found = tune(made(recipe_file, trials=4, **keys))
    assert len({trial.settings["optimizer.weight_decay"] for trial in found.trials}) == 4


def test_machines_that_share_a_storage(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that comes when all trials are taken says so; once one has ended, the best so far is told as such."""

    def advance(recipe: TuneRecipe, trial: Any, part: int) -> None:
        trial.value, trial.steps = 1.0 + trial.number, 2

    monkeypatch.setattr(module, "_advance", advance)
    monkeypatch.setattr(
        module, "_held_against_default", lambda r, t, b: Outcome(t, b, [1.0, 1.0], [1.0, 1.0], "noise", "figure", 1.0)
    )
    keys: dict[str, Any] = {"storage": f"sqlite:///{recipe_file.parent}/shared.db", "halving": None, "trials": 2}
    one, other = (made(recipe_file, out=str(recipe_file.parent / name), **keys) for name in ("one", "other"))
    one.folder.mkdir()
    study = module._study(one)
    for _ in range(2):
        study.ask()
    with pytest.raises(UserError, match="2 that others are at work on; start this again"):
        tune(other)
    more = made(recipe_file, out=str(recipe_file.parent / "other"), **{**keys, "trials": 3})
    assert tune(more).best.number == 2
    assert "others are at work on 2 trials" in caplog.text
