"""A task's answers, measured: its metrics, each with its settings and its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.core.registry import load_part, nearest
from foundling.evaluation.significance import intervals
from foundling.tasks.base import Measured

FOLDER = "evaluation.metrics"


@dataclass(frozen=True)
class Judgement:
    """What answers are worth."""

    figures: dict[str, float]
    """By name, the task's main one first."""
    higher_is_better: dict[str, bool]
    settings: dict[str, str]
    """How each metric was computed, by the metric's name."""
    scored: dict[str, Any]
    """What the figures come from, by the metric's name: for intervals and comparisons."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % of each figure, by bootstrap over examples, where they were asked for."""

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: round(value, 6) for name, value in self.figures.items()}
        if self.intervals:
            found["intervals"] = {name: [round(x, 6) for x in pair] for name, pair in self.intervals.items()}
        return {**found, "settings": self.settings}


def judge(measured: Sequence[Measured], *, with_intervals: bool = False) -> Judgement:
    """The figures of answers by a task's metrics."""
    figures: dict[str, float] = {}
    better: dict[str, bool] = {}
    settings: dict[str, str] = {}
    scored: dict[str, Any] = {}
    bounds: dict[str, tuple[float, float]] = {}
    for one in measured:
        config = load_part(FOLDER, one.metric).Config
        metric = validate(config, {"kind": one.metric, **one.settings}, f"metric {one.metric}").build()
        found = metric.score(one.golds, one.answers)
        scored[one.metric], settings[one.metric] = found, found.settings
        own = found.figures()
        figures |= own
        better |= dict.fromkeys(own, metric.higher_is_better)
        if with_intervals:
            bounds |= intervals(found)
    return Judgement(figures, better, settings, scored, bounds)


def chosen_figure(figures: Mapping[str, float], name: str) -> float:
    """A figure by name; UserError naming those that there are."""
    if name not in figures:
        near = nearest(name, list(figures))
        raise UserError(
            f"metric must be one of {', '.join(figures)}",
            got=repr(name),
            do=f"did you mean {near!r}?" if near else None,
        )
    return figures[name]
