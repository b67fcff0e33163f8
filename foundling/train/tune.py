"""Tuning: settings are tried, bad ones end early, good ones go on from their checkpoints, and the best is held against
the recipe as it was, over several seeds."""

import json
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from typing import Any

import yaml

from foundling.core.config import override, read_yaml, resolved, validate
from foundling.core.errors import UserError
from foundling.core.files import MANIFEST, hash_of, read_manifest, write_json, write_text
from foundling.core.lock import alone_in
from foundling.core.log import logger
from foundling.train.finetune import Finetuning
from foundling.train.finetune_recipe import FinetuneRecipe
from foundling.train.pretrain import Pretraining
from foundling.train.recipe import Recipe
from foundling.train.run import Run
from foundling.train.session import is_finished, run_recipe
from foundling.train.state import checkpoints
from foundling.train.tune_figure import figure_of
from foundling.train.tune_recipe import Search, TuneRecipe
from foundling.train.tune_report import Figure, Outcome, Trial, verdict_of, write_tune_report
from foundling.train.tune_storage import (
    GRACE_SECONDS,
    database_faults,
    go_on_with,
    heart,
    optuna,
    reached,
    storage_fault,
    study_of,
    unless_taken_over,
    unwarned,
    without_password,
)

_DATA_FLOORS = ("corpus", "tokenizers", "data", "models", "tasks")
_DATA_FILES = ("prepare.py", "examples.py", "start.py")
"""Whence lines come about what all trials have in common."""


def tune(recipe: TuneRecipe) -> Outcome:
    """Searches, and writes `best.yaml`, `tune.json` and `report.html` into the recipe's folder.

    A killed tuning that is started again goes on with what its storage holds, and trials in a storage of its own from
    their checkpoints. UserError: a searched key that the recipe does not have, a metric that it does not have or whose
    better end is not known, Optuna or the storage's driver is missing, the storage cannot be used, another process is
    at this search, every trial ended with a fault.
    """
    optuna()
    _recipe_of(recipe, {key: _some_value(search) for key, search in recipe.search.items()}, recipe.folder / "trial")
    given, _ = _recipe_of(recipe, {}, recipe.folder / "trial")
    if isinstance(given, FinetuneRecipe) and not getattr(given.task, "dev", ()):
        raise UserError("tuning a fine-tuning needs task.dev: examples that are held back", got="none")
    study = study_of(recipe)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    once = _Once()
    logger.addFilter(once)
    try:
        with alone_in(recipe.folder, "searched"):
            figure = figure_of(recipe, given)
            _claim(recipe, figure, study)
            return _search(recipe, figure, study)
    except database_faults() as error:
        raise storage_fault(recipe, error) from error
    finally:
        logger.removeFilter(once)


def _search(recipe: TuneRecipe, figure: Figure, study: Any) -> Outcome:
    bracket = recipe.halving.bracket if recipe.halving else 1
    while (left := _num_left(recipe, study)) > 0:
        _run_bracket(recipe, figure, study, min(bracket, left))
    trials = [Trial(**one.user_attrs["trial"]) for one in _told(study) if one.state.is_finished()]
    whole = [trial for trial in trials if trial.whole and math.isfinite(trial.value)]
    at_work = sum(one.state.name == "RUNNING" for one in study.get_trials(deepcopy=False))
    if not whole and at_work:
        raise UserError(
            "a trial must come to its end before the best is told",
            got=f"{at_work} that others are at work on",
            do="start this again when they are done; trials of a machine that was killed are taken over after "
            f"{GRACE_SECONDS // 60} minutes",
        )
    if not whole:
        faults = next((trial.fault for trial in trials if trial.fault), "none")
        raise UserError("a trial must come to its end", got=f"{len(trials)} that did not; the first fault: {faults}")
    if at_work:
        logger.warning("others are at work on %d trials: this is the best of those that came to their end", at_work)
    best = min(whole, key=lambda trial: trial.value)
    _write_best(recipe, best)  # the comparison trains again, and may end in a fault
    outcome = _held_against_default(recipe, trials, best, figure)
    _write(recipe, outcome)
    return outcome


class _Once(logging.Filter):
    """Lets a line about data and what is started from come once: each trial finds there what the first one found."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        path = Path(record.pathname)
        if not {*path.parts[-3:-1]} & {*_DATA_FLOORS} and path.name not in _DATA_FILES:
            return True
        text = record.getMessage()
        is_new = text not in self._said
        self._said.add(text)
        return is_new


def _claim(recipe: TuneRecipe, figure: Figure, study: Any) -> None:
    """Makes a new study this search's own, and sees that one that goes on is; what a kill cut off goes on."""
    asked = {
        "recipe": recipe.recipe,
        "content": hash_of(read_yaml(Path(recipe.recipe))),
        "search": resolved(recipe)["search"],
        "settings": list(recipe.settings),
        **({"metric": [figure.name, figure.higher_is_better]} if recipe.metric is not None else {}),
    }
    if study.user_attrs.get("asked", asked) != asked:
        raise UserError(
            f"{recipe.folder} must hold a study of the same recipe, search and metric",
            got="one of another, or of what the recipe's file held before",
            do="choose another out=DIR, or remove it",
        )
    study.set_user_attr("asked", asked)
    if recipe.storage is None:  # in a shared storage others may be at work: there the silent ones are told by heartbeat
        running = optuna().trial.TrialState.RUNNING
        for one in study.get_trials(deepcopy=False, states=(running,)):
            study.tell(one.number, state=optuna().trial.TrialState.FAIL)
            go_on_with(study, one)


def _num_left(recipe: TuneRecipe, study: Any) -> int:
    """Trials that nobody has begun, those of machines that have fallen silent among them."""
    with unwarned():
        optuna().storages.fail_stale_trials(study)
    return recipe.trials - len(_told(study))


def _told(study: Any) -> list[Any]:
    """Trials that count: neither those that a kill cut off, nor what is to be tried again of these."""
    return [one for one in study.get_trials(deepcopy=False) if one.state.name not in ("FAIL", "WAITING")]


def _run_bracket(recipe: TuneRecipe, figure: Figure, study: Any, number: int) -> None:
    with heart(recipe, study) as begin:
        _run_rungs(recipe, figure, study, number, begin)


def _run_rungs(recipe: TuneRecipe, figure: Figure, study: Any, number: int, begin: Callable[[Any], None]) -> None:
    """Trials side by side, rung by rung: the best of each rung go on from their checkpoints."""
    trials, handles = [], {}
    for _ in range(number):
        with unwarned():
            one = study.ask()
        begin(one)
        number = one.number if recipe.storage else _own_number(study, one)
        study.sampler = _sampler(recipe, number)
        trials.append(Trial(number, {key: _suggested(one, key, s) for key, s in recipe.search.items()}))
        handles[number] = one
    if told := [f"{trial.number}" for trial in trials if checkpoints(_folder_of(recipe, trial.number))]:
        logger.info("going on from the checkpoints of trials %s", ", ".join(told))
    rungs = recipe.halving.rungs if recipe.halving else 1
    factor = recipe.halving.factor if recipe.halving else 1
    alive = trials
    for rung in range(rungs):
        for trial in alive:
            known = reached(handles[trial.number]) if checkpoints(_folder_of(recipe, trial.number)) else []
            if rung < len(known):  # before a kill: its checkpoint may lie behind this rung
                trial.steps, trial.value = known[rung]
            else:
                _advance(recipe, trial, factor ** (rungs - 1 - rung), figure)
            if not trial.fault:
                with unless_taken_over(trial):
                    handles[trial.number].report(trial.value, trial.steps)
        alive = sorted((t for t in alive if not t.fault), key=lambda t: t.value)
        if rung < rungs - 1:
            alive = alive[: max(1, len(alive) // factor)]
    for trial in trials:
        handle = handles[trial.number]
        trial.whole = trial in alive
        states = optuna().trial.TrialState
        with unless_taken_over(trial):
            handle.set_user_attr("trial", asdict(trial))
            state = states.COMPLETE if trial.whole else states.PRUNED
            study.tell(handle, trial.value if trial.whole else None, state=state)
        shutil.rmtree(_folder_of(recipe, trial.number), ignore_errors=True)


def _folder_of(recipe: TuneRecipe, number: int) -> Path:
    return recipe.folder / f"trial-{number:04d}"


def _own_number(study: Any, trial: Any) -> int:
    """A trial's number among those that count, the same whether a kill cut the search off or not: its folder's."""
    counted = [one for one in study.get_trials(deepcopy=False) if one.state.name != "FAIL"]
    return sum(one.number < trial.number for one in counted)


def _sampler(recipe: TuneRecipe, number: int) -> Any:
    """What suggests a trial's settings, of a seed of its own: a search that goes on, or is shared by machines, draws no
    settings twice. Half of the trials at most are drawn at random."""
    seed = int(hash_of([recipe.seed, number])[:8], 16)
    return optuna().samplers.TPESampler(seed=seed, n_startup_trials=min(10, (recipe.trials + 1) // 2))


def _suggested(trial: Any, key: str, search: Search) -> Any:
    if search.choices:
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in search.choices]))
    if search.whole:
        return trial.suggest_int(key, int(search.low or 0), int(search.high or 0), log=search.log)
    drawn = float(f"{trial.suggest_float(key, search.low, search.high, log=search.log):.4g}")
    return min(max(drawn, search.low or 0.0), search.high or 0.0)  # four digits may lie beyond


def _some_value(search: Search) -> Any:
    return search.choices[0] if search.choices else int(search.low or 0) if search.whole else search.low


def _advance(recipe: TuneRecipe, trial: Trial, part: int, figure: Figure) -> None:
    """Trains a trial up to 1 / part of its run, from where it stands; its value, or its fault."""
    out = _folder_of(recipe, trial.number)
    try:
        run = _run(recipe, trial.settings, out, part)
        trial.value, trial.steps = _value_of(recipe, run, figure), run.summary["steps"]
        told = ", ".join(f"{key} {value}" for key, value in trial.settings.items())
        came = f"{figure.name} {figure.sign * trial.value:.5g}"
        logger.info("trial %d: %s: %s after %d steps", trial.number, told, came, trial.steps)
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


def _value_of(recipe: TuneRecipe, run: Run, figure: Figure) -> float:
    """How bad a run is on what was held back: the smaller the better."""
    summary = run.summary
    if recipe.metric is None and "best_value" in summary:  # the larger the better, whatever the figure
        return -float(summary["best_value"])
    figures = summary.get("valid") or summary["dev"]
    found = figures.get(figure.name)
    if not isinstance(found, int | float) or not math.isfinite(found):
        raise UserError(f"a run's {figure.name} on what is held back must be a number", got=found)
    return figure.sign * float(found)


def _held_against_default(recipe: TuneRecipe, trials: list[Trial], best: Trial, figure: Figure) -> Outcome:
    """The best settings and the recipe as it is, with the same seeds."""
    values: dict[str, list[float]] = {"best": [], "default": []}
    seeds = _fresh_seeds(recipe, trials)
    for name, settings in (("best", best.settings), ("default", {})):
        for number in seeds:
            out = recipe.folder / f"{name}-seed-{number}"
            wanted = {**settings, "seed": number}
            given, _ = _recipe_of(recipe, wanted, out)
            if not is_finished(out, given):
                if (out / MANIFEST).exists() and read_manifest(out, "run")["settings"]["recipe"] != resolved(given):
                    shutil.rmtree(out)  # of what was best before more trials
                _run(recipe, wanted, out)
            values[name].append(_value_of(recipe, Run(out), figure))
    verdict = verdict_of(values["best"], values["default"])
    return Outcome(trials, best, values["best"], values["default"], verdict, figure.name, figure.sign)


def _fresh_seeds(recipe: TuneRecipe, trials: list[Trial]) -> list[int]:
    """Seeds that no trial had: a run that was chosen for its figure would flatter its settings."""
    own = _recipe_of(recipe, {}, recipe.folder / "trial")[0].seed
    used = {own, *(trial.settings.get("seed") for trial in trials)}
    return list(islice((seed for seed in count() if seed not in used), recipe.seeds))


def _write_best(recipe: TuneRecipe, best: Trial) -> None:
    data = override(
        read_yaml(Path(recipe.recipe)),
        [*recipe.settings, *(f"{key}={json.dumps(value)}" for key, value in best.settings.items())],
    )
    write_text(recipe.folder / "best.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def _write(recipe: TuneRecipe, outcome: Outcome) -> None:
    folder = recipe.folder
    said = resolved(recipe) | ({"storage": without_password(recipe.storage)} if recipe.storage else {})
    write_json(folder / "tune.json", {"recipe": said, **asdict(outcome)})
    write_tune_report(folder, recipe, outcome)
