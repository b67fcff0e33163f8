"""A search in a storage that machines share: what a machine that was killed had begun, others try again, once."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.train import tune as module
from foundling.train import tune_storage
from foundling.train.tune import tune
from foundling.train.tune_recipe import TuneRecipe
from foundling.train.tune_report import Figure, Outcome
from tests.tiny import recipe_data

pytest.importorskip("optuna")
Made = Callable[..., TuneRecipe]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Searches over one rate that share a storage, each in a folder of its own; nothing is trained."""

    def advance(recipe: TuneRecipe, trial: Any, *_: Any) -> None:
        trial.value, trial.steps = 1.0 + trial.number, 2

    def held(recipe: TuneRecipe, trials: list[Any], best: Any, figure: Any) -> Outcome:
        return Outcome(trials, best, [1.0, 1.0], [1.0, 1.0], "noise", figure.name, figure.sign)

    monkeypatch.setattr(module, "figure_of", lambda *_: Figure("loss", False))
    monkeypatch.setattr(module, "_advance", advance)
    monkeypatch.setattr(module, "_held_against_default", held)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe_data(tmp_path / "corpus", tmp_path / "tokenizer", tmp_path / "unused")))

    def make(out: str, **changes: Any) -> TuneRecipe:
        data = {
            "name": "search", "out": str(tmp_path / out), "recipe": str(path), "halving": None, "seeds": 2,
            "search": {"optimizer.lr": {"low": 1e-4, "high": 1e-2}}, "storage": f"sqlite:///{tmp_path}/shared.db",
            **changes,
        }  # fmt: skip
        found: TuneRecipe = validate(TuneRecipe, data, "tune")
        return found

    return make


def killed(recipe: TuneRecipe, silent_seconds: int) -> float:
    """A machine begins a trial, and is last heard of so long ago; the trial's rate."""
    study = module.study_of(recipe)
    with module.unwarned():
        trial = study.ask()
    (key, search), *_ = recipe.search.items()
    rate: float = module._suggested(trial, key, search)
    with module.heart(recipe, study) as begin:
        begin(trial)
    (recipe.folder / f"trial-{trial.number:04d}").mkdir(parents=True)
    put_back(recipe, silent_seconds)
    return rate


def put_back(recipe: TuneRecipe, seconds: int) -> None:
    assert recipe.storage is not None
    with sqlite3.connect(recipe.storage.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', ?)", (f"-{seconds} seconds",))
    database.close()


def states(recipe: TuneRecipe) -> list[str]:
    return [one.state.name for one in module.study_of(recipe).get_trials()]


def test_a_killed_machines_trial_is_tried_again_once(made: Made) -> None:
    recipe = made("one", trials=2)
    rate = killed(recipe, 2 * module.GRACE_SECONDS)
    outcome = tune(recipe)
    assert [trial.number for trial in outcome.trials] == [1, 2]
    assert outcome.trials[0].settings["optimizer.lr"] == rate
    assert states(recipe) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert not list(recipe.folder.glob("trial-*"))


def test_what_kills_twice_is_let_go(made: Made) -> None:
    recipe = made("one", trials=1)
    first = killed(recipe, 2 * module.GRACE_SECONDS)
    module._num_left(recipe, module.study_of(recipe))
    assert killed(recipe, 2 * module.GRACE_SECONDS) == first
    assert tune(recipe).best.settings["optimizer.lr"] != first
    assert states(recipe) == ["FAIL", "FAIL", "COMPLETE"]


def test_who_is_heard_of_keeps_its_trial(made: Made) -> None:
    killed(made("one"), module.GRACE_SECONDS // 2)
    with pytest.raises(UserError, match=r"1 that others are at work on; .* taken over after 10 minutes"):
        tune(made("other", trials=1))
    assert states(made("one")) == ["RUNNING"]


def test_a_machine_at_work_is_heard_of(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def advance(recipe: TuneRecipe, trial: Any, *_: Any) -> None:
        study = module.study_of(recipe)
        put_back(recipe, 2 * module.GRACE_SECONDS)
        until = time.monotonic() + 10
        stale = [trial.number]
        while stale and time.monotonic() < until:
            time.sleep(0.02)
            stale = study._storage._get_stale_trial_ids(study._study_id)
        seen.append(len(stale))
        trial.value, trial.steps = 1.0, 2

    monkeypatch.setattr(tune_storage, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "_advance", advance)
    tune(made("one", trials=1))
    assert seen == [0]


def test_a_trial_that_others_took_over_counts_once(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine that was asleep, not dead: when it wakes its trial is others'."""
    real = module._advance

    def advance(recipe: TuneRecipe, trial: Any, *more: Any) -> None:
        real(recipe, trial, *more)
        if trial.number == 0:
            put_back(recipe, 2 * module.GRACE_SECONDS)
            module._num_left(recipe, module.study_of(recipe))

    monkeypatch.setattr(module, "_advance", advance)
    outcome = tune(made("one", trials=1))
    assert [trial.number for trial in outcome.trials] == [1]
    assert "trial 0: others took it over" in caplog.text


def test_a_storage_of_its_own_has_no_heartbeat(made: Made) -> None:
    """There all that runs at the start was cut off; it is tried again at once, and once."""
    recipe = made("one", storage=None, trials=1)
    study = module.study_of(recipe)
    trial = study.ask()
    (key, search), *_ = recipe.search.items()
    rate = module._suggested(trial, key, search)
    assert study._storage.get_heartbeat_interval() is None
    outcome = tune(recipe)
    assert [found.settings["optimizer.lr"] for found in outcome.trials] == [rate]
    assert states(recipe) == ["FAIL", "COMPLETE"]


def test_a_database_that_goes_away_is_told(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def advance(recipe: TuneRecipe, trial: Any, *_: Any) -> None:
        (tmp_path / "shared.db").write_bytes(b"no database any more" * 1000)
        trial.value, trial.steps = 1.0, 2

    monkeypatch.setattr(module, "_advance", advance)
    with pytest.raises(UserError, match="the storage must be a database that can be used"):
        tune(made("one", trials=1))
