"""What a tuning found, for people: a table in the terminal and one HTML page that stands alone."""

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from foundling.core.chart import Line, draw
from foundling.core.files import write_text
from foundling.train.tune_recipe import TuneRecipe

_SHOWN = 30
"""Trials of the table on the page, the best first."""

_STYLES: tuple[tuple[bool, Literal["main", "faint"]], ...] = ((False, "faint"), (True, "main"))
"""Of trials that were stopped at a rung, and of those that came to their end."""
_NAMES = {"faint": "stopped early", "main": "full length"}


@dataclass
class Trial:
    """One setting that was tried."""

    number: int
    settings: dict[str, Any]
    """Value of each searched key."""
    value: float = math.inf
    """How bad it is at its last rung: the smaller the better."""
    steps: int = 0
    fault: str = ""
    """Why it ended with a fault."""
    whole: bool = False
    """Whether it came to its run's end: neither stopped at a rung nor ended with a fault."""


@dataclass(frozen=True)
class Outcome:
    """What a tuning found."""

    trials: list[Trial]
    best: Trial
    best_values: list[float]
    """Of the best settings, a run each with another seed; the smaller the better."""
    default_values: list[float]
    """Of the recipe as it is, with the same seeds."""
    verdict: str
    """better, worse or noise: of the best settings against the recipe as it is."""
    metric: str
    sign: float
    """-1 where the metric itself is the better the larger it is."""


def rows_of(recipe: TuneRecipe, outcome: Outcome) -> list[list[str]]:
    """The trials, those that went furthest first, and of these the best: number, settings, steps, figure."""
    ordered = sorted(outcome.trials, key=lambda trial: (bool(trial.fault), -trial.steps, trial.value))
    return [
        [
            str(trial.number), *(_short(trial.settings.get(key)) for key in recipe.search), f"{trial.steps:,}",
            trial.fault.split("\n")[0][:60] if trial.fault else f"{outcome.sign * trial.value:.5g}",
        ]
        for trial in ordered
    ]  # fmt: skip


def columns_of(recipe: TuneRecipe, outcome: Outcome) -> list[str]:
    return ["trial", *recipe.search, "steps", outcome.metric]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_tune_report(folder: Path, recipe: TuneRecipe, outcome: Outcome) -> Path:
    """Writes `report.html`: what was tried, what it gave by each key, and what the best gains."""
    home = files("foundling.train")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        home.joinpath("tune.html.jinja").read_text(encoding="utf-8")
    )
    whole = [trial for trial in outcome.trials if not trial.fault]
    charts = []
    for key in recipe.search:
        points = [
            (trial.whole, float(trial.settings[key]), outcome.sign * trial.value)
            for trial in whole
            if isinstance(trial.settings[key], int | float) and math.isfinite(trial.value)
        ]
        if len({x for _, x, _ in points}) > 1:
            parts = [(style, sorted((x, y) for full, x, y in points if full == is_full)) for is_full, style in _STYLES]
            lines = [Line(found, _NAMES[style], style, dots=True) for style, found in parts if found]
            charts.append((key, Markup(draw(lines, label=f"{outcome.metric} by {key}", x_log=recipe.search[key].log))))
    text = page.render(
        name=recipe.name,
        css=Markup(files("foundling.core").joinpath("report.css").read_text(encoding="utf-8")),
        recipe=recipe.recipe,
        metric=outcome.metric,
        num_trials=len(outcome.trials),
        verdict=outcome.verdict,
        best={key: _short(value) for key, value in outcome.best.settings.items()},
        seeds=[
            (name, [f"{outcome.sign * value:.5g}" for value in values])
            for name, values in (("best settings", outcome.best_values), (recipe.recipe, outcome.default_values))
        ],
        columns=columns_of(recipe, outcome),
        rows=rows_of(recipe, outcome)[:_SHOWN],
        charts=charts,
    )
    write_text(folder / "report.html", text)
    return folder / "report.html"
