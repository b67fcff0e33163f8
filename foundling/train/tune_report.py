"""What a tuning found: its verdict, and for people a table in the terminal and one HTML page that stands alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from foundling.core.chart import Line, draw
from foundling.core.files import write_text
from foundling.train.tune_recipe import TuneRecipe

_SHOWN = 30
"""Trials of the table on the page, the best first."""

_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Two-sided 95 % points of Student's distribution with 1, 2, ... 10 degrees of freedom."""

_STYLES: tuple[tuple[bool, Literal["main", "faint"]], ...] = ((False, "faint"), (True, "main"))
"""Of trials that were stopped at a rung, and of those that came to their end."""
_NAMES = {"faint": "stopped early", "main": "full length"}


@dataclass(frozen=True)
class Figure:
    """What trials are judged by."""

    name: str
    higher_is_better: bool

    @property
    def sign(self) -> float:
        """What makes the figure a value of which the smaller is the better, and that value the figure."""
        return -1.0 if self.higher_is_better else 1.0


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
