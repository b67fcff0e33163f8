"""Tuning: settings are tried, bad ones end early, good ones go on from their checkpoints, and the best is held against
the recipe as it was, over several seeds."""

import importlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from foundling.core.config import override, read_yaml, resolved, validate
from foundling.core.errors import UserError
from foundling.core.files import MANIFEST, hash_of, read_manifest, write_json, write_text
from foundling.core.log import logger
from foundling.train.finetune import Finetuning
from foundling.train.finetune_recipe import FinetuneRecipe
from foundling.train.pretrain import Pretraining
from foundling.train.recipe import Recipe
from foundling.train.run import Run
from foundling.train.session import is_finished, run_recipe
from foundling.train.state import checkpoints
from foundling.train.tune_recipe import Search, TuneRecipe
from foundling.train.tune_report import Outcome, Trial, write_tune_report

_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Two-sided 95 % points of Student's distribution with 1, 2, ... 10 degrees of freedom."""


def tune(recipe: TuneRecipe) -> Outcome:
    """Searches, and writes `best.yaml`, `tune.json` and `report.html` into the recipe's folder.

    A killed tuning that is started again goes on with what its storage holds. UserError: a searched key that the recipe
    does not have, Optuna is missing, every trial ended with a fault.
    """
    folder = recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    study = _study(recipe)
    _recipe_of(recipe, {key: _some_value(search) for key, search in recipe.search.items()}, folder / "trial")
    bracket = recipe.halving.bracket if recipe.halving else 1
    while (left := recipe.trials - len(_told(study))) > 0:
        _run_bracket(recipe, study, min(bracket, left))
    trials = [Trial(**one.user_attrs["trial"]) for one in _told(study) if one.state.is_finished()]
    whole = [trial for trial in trials if trial.whole and math.isfinite(trial.value)]
    at_work = sum(one.state.name == "RUNNING" for one in study.get_trials(deepcopy=False))
    if not whole and at_work:
        raise UserError(
            "a trial must come to its end before the best is told",
            got=f"{at_work} that others are at work on",
            do="start this again when they are done",
        )
    if not whole:
        faults = next((trial.fault for trial in trials if trial.fault), "none")
        raise UserError("a trial must come to its end", got=f"{len(trials)} that did not; the first fault: {faults}")
    if at_work:
        logger.warning("others are at work on %d trials: this is the best of those that came to their end", at_work)
    best = min(whole, key=lambda trial: trial.value)
    outcome = _held_against_default(recipe, trials, best)
    _write(recipe, outcome)
    return outcome


def _study(recipe: TuneRecipe) -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise UserError("tuning needs Optuna", got="none", do='pip install "foundling[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own = recipe.storage is None
    storage = recipe.storage or f"sqlite:///{(recipe.folder / 'study.db').absolute()}"
    study = optuna.create_study(study_name=recipe.name, storage=storage, load_if_exists=True)
    asked = {
        "recipe": recipe.recipe,
        "content": hash_of(read_yaml(Path(recipe.recipe))),
        "search": resolved(recipe)["search"],
        "settings": list(recipe.settings),
    }
    if study.user_attrs.get("asked", asked) != asked:
        raise UserError(
            f"{recipe.folder} must hold a study of the same recipe and search",
            got="one of another, or of what the recipe's file held before",
            do="choose another out=DIR, or remove it",
        )
    study.set_user_attr("asked", asked)
    if own:  # what a killed process left behind; in a shared storage others may be at work
        for one in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(one.number, state=optuna.trial.TrialState.FAIL)
            if not one.user_attrs.get("again"):  # its settings are tried again, before new ones; once
                study.enqueue_trial(one.params, user_attrs={"again": True})
            shutil.rmtree(recipe.folder / f"trial-{one.number:04d}", ignore_errors=True)
    return study


def _told(study: Any) -> list[Any]:
    """Trials that count: neither those that a kill cut off, nor what is to be tried again of these."""
    return [one for one in study.get_trials(deepcopy=False) if one.state.name not in ("FAIL", "WAITING")]


def _run_bracket(recipe: TuneRecipe, study: Any, number: int) -> None:
    """Trials side by side, rung by rung: the best of each rung go on from their checkpoints."""
    optuna = importlib.import_module("optuna")
    trials, handles = [], {}
    for _ in range(number):
        one = study.ask()
        study.sampler = _sampler(recipe, one.number)
        trials.append(Trial(one.number, {key: _suggested(one, key, s) for key, s in recipe.search.items()}))
        handles[one.number] = one
    rungs = recipe.halving.rungs if recipe.halving else 1
    factor = recipe.halving.factor if recipe.halving else 1
    alive = trials
    for rung in range(rungs):
        for trial in alive:
            _advance(recipe, trial, factor ** (rungs - 1 - rung))
            if not trial.fault:
                handles[trial.number].report(trial.value, trial.steps)
        alive = sorted((t for t in alive if not t.fault), key=lambda t: t.value)
        if rung < rungs - 1:
            alive = alive[: max(1, len(alive) // factor)]
    for trial in trials:
        handle = handles[trial.number]
        trial.whole = trial in alive
        handle.set_user_attr("trial", asdict(trial))
        state = optuna.trial.TrialState.COMPLETE if trial.whole else optuna.trial.TrialState.PRUNED
        study.tell(handle, trial.value if trial.whole else None, state=state)
        shutil.rmtree(recipe.folder / f"trial-{trial.number:04d}", ignore_errors=True)


def _sampler(recipe: TuneRecipe, number: int) -> Any:
    """What suggests a trial's settings, of a seed of its own: a search that goes on, or is shared by machines, draws no
    settings twice. Half of the trials at most are drawn at random."""
    optuna = importlib.import_module("optuna")
    seed = int(hash_of([recipe.seed, number])[:8], 16)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, (recipe.trials + 1) // 2))


def _suggested(trial: Any, key: str, search: Search) -> Any:
    if search.choices:
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in search.choices]))
    if search.whole:
        return trial.suggest_int(key, int(search.low or 0), int(search.high or 0), log=search.log)
    return float(f"{trial.suggest_float(key, search.low, search.high, log=search.log):.4g}")


def _some_value(search: Search) -> Any:
    return search.choices[0] if search.choices else int(search.low or 0) if search.whole else search.low


def _advance(recipe: TuneRecipe, trial: Trial, part: int) -> None:
    """Trains a trial up to 1 / part of its run, from where it stands; its value, or its fault."""
    out = recipe.folder / f"trial-{trial.number:04d}"
    try:
        run = _run(recipe, trial.settings, out, part)
        trial.value, trial.steps = _value_of(recipe, run), run.summary["steps"]
        told = ", ".join(f"{key} {value}" for key, value in trial.settings.items())
        logger.info("trial %d: %s: %.5g after %d steps", trial.number, told, trial.value, trial.steps)
    except UserError as error:
        trial.fault = str(error)
        logger.warning("trial %d ended with a fault: %s", trial.number, error)


def _run(recipe: TuneRecipe, settings: dict[str, Any], out: Path, part: int = 1) -> Run:
    given, kind = _recipe_of(recipe, settings, out)
    run = run_recipe(
        given, kind, resume=bool(checkpoints(out)), share=1 / part, data_folder=recipe.folder / "data"
    )  # fmt: skip
    if run.stop_signal is not None:
        raise KeyboardInterrupt
    return run


def _recipe_of(recipe: TuneRecipe, settings: dict[str, Any], out: Path) -> tuple[Any, Any]:
    """The recipe with these settings, checked, and its kind of run."""
    changes = [f"{key}={json.dumps(value)}" for key, value in {**settings, "out": str(out)}.items()]
    data = override(read_yaml(Path(recipe.recipe)), [*recipe.settings, *changes])
    data.setdefault("name", Path(recipe.recipe).stem)
    read: Any = validate(FinetuneRecipe if "task" in data else Recipe, data, recipe.recipe)
    return read, Finetuning() if isinstance(read, FinetuneRecipe) else Pretraining()


def _value_of(recipe: TuneRecipe, run: Run) -> float:
    """How bad a run is on what was held back: the smaller the better."""
    summary = run.summary
    figures = summary.get("valid") or summary.get("dev") or {}
    if recipe.metric is not None:
        if not isinstance(figures.get(recipe.metric), int | float):
            raise UserError(f"metric must be one of {', '.join(figures)}", got=recipe.metric)
        return float(-figures[recipe.metric] if recipe.higher_is_better else figures[recipe.metric])
    if "valid" in summary:
        return float(figures["bits_per_byte" if "bits_per_byte" in figures else "loss"])
    if summary.get("best_value") is None:
        raise UserError("tuning a fine-tuning needs task.dev", got="none")
    return -float(summary["best_value"])


def _held_against_default(recipe: TuneRecipe, trials: list[Trial], best: Trial) -> Outcome:
    """The best settings and the recipe as it is, with the same seeds."""
    values: dict[str, list[float]] = {"best": [], "default": []}
    for name, settings in (("best", best.settings), ("default", {})):
        for number in range(recipe.seeds):
            out = recipe.folder / f"{name}-seed-{number}"
            wanted = {**settings, "seed": number}
            given, _ = _recipe_of(recipe, wanted, out)
            if not is_finished(out, given):
                if (out / MANIFEST).exists() and read_manifest(out, "run")["settings"]["recipe"] != resolved(given):
                    shutil.rmtree(out)  # of what was best before more trials
                _run(recipe, wanted, out)
            values[name].append(_value_of(recipe, Run(out)))
    negative = recipe.higher_is_better if recipe.metric is not None else values["best"][0] < 0
    metric = recipe.metric or ("figure on dev" if negative else "validation figure")
    verdict = verdict_of(values["best"], values["default"])
    return Outcome(trials, best, values["best"], values["default"], verdict, metric, -1.0 if negative else 1.0)


def verdict_of(best: Sequence[float], default: Sequence[float]) -> str:
    """better, worse or noise, by Welch's t-test at 95 %; the smaller the better."""
    gain = mean(default) - mean(best)
    parts = [stdev(x) ** 2 / len(x) for x in (best, default)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return "noise" if gain == 0 else "better" if gain > 0 else "worse"
    degrees = sum(parts) ** 2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (best, default), strict=True))
    bound = _T95[min(len(_T95), max(1, int(degrees))) - 1]
    if abs(gain) <= bound * error:
        return "noise"
    return "better" if gain > 0 else "worse"


def _write(recipe: TuneRecipe, outcome: Outcome) -> None:
    folder = recipe.folder
    data = override(
        read_yaml(Path(recipe.recipe)),
        [*recipe.settings, *(f"{key}={json.dumps(value)}" for key, value in outcome.best.settings.items())],
    )
    write_text(folder / "best.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    write_json(folder / "tune.json", {"recipe": resolved(recipe), **asdict(outcome)})
    write_tune_report(folder, recipe, outcome)
