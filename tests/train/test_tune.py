"""Tuning: the best of a rung go on from their checkpoints, and what is best is held against what was there."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.core.lock import alone_in
from foundling.train import loop, tune_figure
from foundling.train import tune as module
from foundling.train.pretrain import pretrain
from foundling.train.recipe import recipe_from
from foundling.train.run import Run
from foundling.train.tune import tune
from foundling.train.tune_recipe import Search, TuneRecipe
from foundling.train.tune_report import Figure, Outcome, verdict_of
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
def test_good_settings_are_found_and_beat_the_recipe(recipe_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "foundling")
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
    for key in ("optimizer.lr", "optimizer.weight_decay"):
        drawn = page.partition(f'aria-label="bits_per_byte by {key}"')[2].partition("</svg>")[0]
        assert drawn.count("dot") == 4, "one for each trial"
        assert drawn.count('class="main dot"') == 1, "the one of full length"
    said = Counter(record.getMessage() for record in caplog.records)
    assert [number for text, number in said.items() if text.startswith("token store:")] == [1]
    assert sum(number for text, number in said.items() if text.startswith("training:")) > 4, "each run tells its own"
    assert not logging.getLogger("foundling").filters


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

    def advance(recipe: TuneRecipe, trial: Any, part: int, figure: Figure) -> None:
        ran.append(trial.number)
        begun.append(trial.settings)
        if len(ran) == 3:
            raise KeyboardInterrupt
        real(recipe, trial, part, figure)

    monkeypatch.setattr(module, "_advance", advance)
    given = made(recipe_file, halving=None, trials=4)
    with pytest.raises(KeyboardInterrupt):
        tune(given)
    monkeypatch.setattr(module, "_advance", real)
    outcome = tune(given)
    assert len([trial for trial in outcome.trials if not trial.fault]) == len(outcome.trials) == 4
    assert all(settings in [trial.settings for trial in outcome.trials] for settings in begun), "tried again"
    with pytest.raises(UserError, match="study of the same recipe, search and metric"):
        tune(made(recipe_file, search={"optimizer.lr": {"choices": [1e-3]}}))


@pytest.mark.parametrize(("killed_at", "half"), [(1, False), (5, False), (5, True), (7, False)])
def test_a_killed_bracket_goes_on_from_its_checkpoints_to_the_same_end(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, half: bool
) -> None:
    """No step that a rung has behind it is trained again, and all trials come to what they would have come to."""
    monkeypatch.setattr(module, "_held_against_default", lambda recipe, trials, best, figure: trials)
    monkeypatch.setattr(module, "_write", lambda *_: None)
    steps, calls, real, step = [0], [0], module._advance, loop.training_step

    def counted(training: Any) -> Any:
        steps[0] += 1
        return step(training)

    def advance(recipe: TuneRecipe, trial: Any, part: int, figure: Figure) -> None:
        calls[0] += 1
        if calls[0] != killed_at:
            return real(recipe, trial, part, figure)
        if half:  # its rung is trained, and nobody was told what came of it
            real(recipe, trial, part, figure)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "training_step", counted)
    search = {"optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    given: dict[str, Any] = {"search": search, "trials": 6, "halving": {"factor": 2, "rungs": 3}}
    whole = tune(made(recipe_file, out=str(recipe_file.parent / "whole"), **given))
    trained, steps[0] = steps[0], 0
    cut = made(recipe_file, **given)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_advance", advance)
        with pytest.raises(KeyboardInterrupt):
            tune(cut)
    assert tune(cut) == whole
    assert steps[0] == trained


def test_a_folder_is_searched_by_one_process_at_a_time(recipe_file: Path) -> None:
    given = made(recipe_file)
    given.folder.mkdir()
    with alone_in(given.folder, "searched"), pytest.raises(UserError, match="searched by one process at a time"):
        tune(given)


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


@pytest.fixture
def finetuning_file(tmp_path: Path) -> Path:
    rows = [{"text": f"w{7 + i} w{8 + (i * 3) % 9}", "label": "ab"[i % 2]} for i in range(10)]
    path = str(write_rows(tmp_path / "train.jsonl", rows))
    data = {
        "name": "tiny", "base": str(base_folder(tmp_path, "bert")),
        "task": {"kind": "classification", "train": path, "dev": path},
        "optimizer": {"kind": "adamw", "lr": 1e-7}, "schedule": {"kind": "constant", "warmup": 0},
        "train": {"length": "24 steps", "batch": "10 rows", "compile": False, "precision": "fp32"},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(data))
    return tmp_path / "tiny.yaml"


RATES = {"optimizer.lr": {"choices": [1e-7, 3e-3]}}


def test_a_fine_tuning_is_searched_by_dev(finetuning_file: Path) -> None:
    outcome = tune(made(finetuning_file, search=RATES, halving=None, trials=4))
    assert outcome.best.settings == {"optimizer.lr": 3e-3}
    assert (outcome.metric, outcome.sign) == ("accuracy", -1)
    assert min(-value for value in outcome.best_values) > 0.9


@pytest.fixture
def nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(*_: Any) -> None:
        raise AssertionError("a trial trained before it was told")

    monkeypatch.setattr(module, "_advance", advance)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Runs that train nothing: at the high rate they are right more often, and lose less. What each was set to."""
    ran: list[dict[str, Any]] = []

    def run(recipe: TuneRecipe, settings: dict[str, Any], out: Path, part: int = 1) -> Run:
        ran.append(settings)
        right = 0.9 if settings.get("optimizer.lr") == 3e-3 else 0.5 + 0.001 * settings.get("seed", 0)
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"steps": 1, "best_value": right, "dev": {"accuracy": right, "nll": 1 - right}})
        (out / "summary.json").write_text(text)
        return Run(out)

    monkeypatch.setattr(module, "_run", run)
    return ran


@pytest.mark.usefixtures("in_turn", "pretended")
@pytest.mark.parametrize(("metric", "sign"), [("accuracy", -1), ("nll", 1)])
def test_which_end_of_a_figure_is_better_is_known(finetuning_file: Path, metric: str, sign: int) -> None:
    outcome = tune(made(finetuning_file, search=RATES, halving=None, trials=2, metric=metric))
    assert outcome.best.settings == {"optimizer.lr": 3e-3}
    assert (outcome.verdict, outcome.metric, outcome.sign) == ("better", metric, sign)
    assert [round(sign * value, 6) for value in outcome.best_values] == [0.9 if sign < 0 else 0.1] * 2
    with pytest.raises(UserError, match="same recipe, search and metric"):
        tune(made(finetuning_file, search=RATES, halving=None, trials=2, metric="brier"))


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metric": "acuracy", "higher_is_better": True}, "did you mean 'accuracy'"),
        ({"metric": "accuracy", "higher_is_better": False}, "of accuracy the larger is the better; got .* false"),
        ({"metric": "nll", "higher_is_better": True}, "of nll the smaller is the better; got .* true"),
        ({"higher_is_better": False}, "of accuracy the larger is the better"),
        ({"settings": ["task.dev=[]"]}, "needs task.dev"),
    ],
)
def test_a_metric_that_cannot_be_is_told_before_any_trial(
    finetuning_file: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        tune(made(finetuning_file, search=RATES, **changes))


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metric": "bits"}, "must be one of loss, perplexity, bits_per_byte; got 'bits'"),
        ({"metric": "perplexity", "higher_is_better": True}, "of perplexity the smaller is the better"),
    ],
)
def test_a_metric_that_a_pretraining_has_not(recipe_file: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        tune(made(recipe_file, **changes))


def test_a_loss_is_never_held_against_bits_per_byte(recipe_file: Path, tmp_path: Path) -> None:
    """As where a searched key changes the objective to one that predicts no text."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(json.dumps({"valid": {"loss": 1.5}}))
    with pytest.raises(UserError, match="a run's bits_per_byte on what is held back must be a number"):
        module._value_of(made(recipe_file), Run(tmp_path / "run"), Figure("bits_per_byte", higher_is_better=False))


def test_figures_of_pretraining() -> None:
    losses = ("loss", "loss/books", "next_loss", "perplexity", "bits_per_byte")
    assert [tune_figure._better_of(name) for name in losses] == [False] * 5
    assert [tune_figure._better_of(name) for name in ("mlm_accuracy", "next_accuracy", "above_noise")] == [True] * 3
    assert tune_figure._better_of("surprise") is None


@pytest.mark.parametrize("higher", [None, True, False])
def test_of_an_unknown_figure_the_recipe_says_which_end_is_better(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, higher: bool | None
) -> None:
    monkeypatch.setattr(tune_figure, "_figures_on_valid", lambda *_: {"surprise": None})
    recipe = made(recipe_file, metric="surprise", higher_is_better=higher)
    given, _ = module._recipe_of(recipe, {}, recipe.folder)
    if higher is None:
        with pytest.raises(UserError, match="add higher_is_better=true or =false"):
            tune_figure.figure_of(recipe, given)
    else:
        assert tune_figure.figure_of(recipe, given) == Figure("surprise", higher)


@pytest.mark.usefixtures("in_turn")
def test_the_best_is_held_against_the_recipe_with_seeds_that_no_trial_had(
    finetuning_file: Path, pretended: list[dict[str, Any]]
) -> None:
    tune(made(finetuning_file, search=RATES, settings=["seed=1"], halving=None, trials=2, seeds=3))
    assert [ran.get("seed") for ran in pretended] == [None, None, 0, 2, 3, 0, 2, 3]
    pretended.clear()
    search = {**RATES, "seed": {"choices": [0, 3]}}
    out = str(finetuning_file.parent / "seeds")
    tune(made(finetuning_file, search=search, settings=["seed=1"], halving=None, trials=4, seeds=2, out=out))
    tried = {ran["seed"] for ran in pretended[:4]}
    held = [ran["seed"] for ran in pretended[4:]]
    assert held[:2] == held[2:]
    assert not {1, *tried} & {*held}


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
        ({"a": {"low": 0.5, "high": 8, "whole": True}}, "whole needs a low and a high that are whole"),
        ({"a": {"low": 1, "high": 8.5, "whole": True}}, "whole needs a low and a high that are whole"),
        ({"a": {"low": 0, "high": 8, "whole": True, "log": True}}, "log needs a low of 1 or more"),
        ({"a": {"choices": [1.5], "whole": True}}, "whole needs a low and a high"),
        ({"a": {"low": 0, "high": float("inf")}}, "must be finite"),
    ],
)
def test_searches_that_say_nothing(search: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        validate(TuneRecipe, {"name": "x", "recipe": "x.yaml", "search": search}, "tune")


@pytest.mark.parametrize(
    "search",
    [
        Search(low=1, high=3, whole=True),
        Search(low=1, high=3, whole=True, log=True),
        Search(low=0.00012346, high=0.00012347),
        Search(low=0.99998, high=0.99999, log=True),
    ],
)
def test_what_is_drawn_lies_in_the_range(search: Search) -> None:
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {module._suggested(study.ask(), "a", search) for _ in range(40)}
    assert search.low is not None
    assert search.high is not None
    assert all(search.low <= value <= search.high for value in drawn)
    if search.whole:
        assert drawn == {1, 2, 3}
        assert all(isinstance(value, int) for value in drawn)


@pytest.mark.usefixtures("in_turn")
def test_a_whole_run_of_fewer_steps_may_be_best(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(recipe: TuneRecipe, trial: Any, *_: Any) -> None:
        trial.value, trial.steps = (1.0, 2) if trial.settings["train.batch"] == "16 rows" else (2.0, 8)

    def held(recipe: TuneRecipe, trials: list[Any], best: Any, figure: Figure) -> Outcome:
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
    def advance(recipe: TuneRecipe, trial: Any, *_: Any) -> None:
        trial.value, trial.steps = 1.0, 2

    monkeypatch.setattr(module, "_advance", advance)
    monkeypatch.setattr(
        module,
        "_held_against_default",
        lambda r, t, b, f: Outcome(t, b, [1.0, 1.0], [1.0, 1.0], "noise", "figure", 1.0),
    )
    keys: dict[str, Any] = {"search": {"optimizer.weight_decay": {"low": 0.0, "high": 0.1}}, "halving": None}
    tune(made(recipe_file, trials=2, **keys))
    found = tune(made(recipe_file, trials=4, **keys))
    assert len({trial.settings["optimizer.weight_decay"] for trial in found.trials}) == 4


def test_machines_that_share_a_storage(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that comes when all trials are taken says so; once one has ended, the best so far is told as such."""

    def advance(recipe: TuneRecipe, trial: Any, *_: Any) -> None:
        trial.value, trial.steps = 1.0 + trial.number, 2

    monkeypatch.setattr(module, "_advance", advance)
    monkeypatch.setattr(
        module,
        "_held_against_default",
        lambda r, t, b, f: Outcome(t, b, [1.0, 1.0], [1.0, 1.0], "noise", "figure", 1.0),
    )
    keys: dict[str, Any] = {"storage": f"sqlite:///{recipe_file.parent}/shared.db", "halving": None, "trials": 2}
    one, other = (made(recipe_file, out=str(recipe_file.parent / name), **keys) for name in ("one", "other"))
    one.folder.mkdir()
    study = module.study_of(one)
    with module.unwarned():
        for _ in range(2):
            study.ask()
    with pytest.raises(UserError, match="2 that others are at work on; start this again"):
        tune(other)
    more = made(recipe_file, out=str(recipe_file.parent / "other"), **{**keys, "trials": 3})
    assert tune(more).best.number == 2
    assert "others are at work on 2 trials" in caplog.text
