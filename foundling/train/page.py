"""What the report pages of runs have in common: figures as text, curves, the frame of the page."""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from foundling.core.chart import Line, Point, draw, extremes, smoothed
from foundling.core.errors import UserError
from foundling.core.units import human

REPORT_FILE = "report.html"
_SMOOTH_FROM = 20
"""Fewer points than this are a line as they are."""
_MOST_INCIDENTS = 30
_DONE = {"warn": "taken", "skip": "skipped"}
_LOG_FROM = 3.0
"""A curve whose highest value is so many times its lowest is drawn on a log axis."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; one that a kill cut short can only be the last."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"line {number} of {path} must be JSON", got=str(error)) from error
    return found


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without those of steps that a rewind took back; what the guard told stays."""
    kept: list[dict[str, Any]] = []
    for line in read_lines(path):
        back_to = line.get("guard/back_to")
        if back_to is not None:
            kept = [one for one in kept if one["step"] <= back_to or "guard/finding" in one]
        kept.append(line)
    return kept


def incidents(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the template shows of the steps that the guard found out of the ordinary, the newest ones."""
    found = [line for line in metrics if "guard/finding" in line]
    rows = [
        {
            "step": line["step"],
            "finding": line["guard/finding"].replace("_", " ").replace("non", "not"),
            "done": _DONE.get(line["guard/action"]) or f"back to step {line['guard/back_to']:,}",
            "loss": _figure(line["guard/loss"]),
            "gradient_norm": _figure(line["guard/gradient_norm"]),
            "rows": "; ".join(line["guard/rows"]),
        }
        for line in found[-_MOST_INCIDENTS:]
    ]
    left_out = f" The last {_MOST_INCIDENTS} of {len(found)} are shown." if len(found) > _MOST_INCIDENTS else ""
    passed = found[-1]["guard/batches_passed_over"] if found else 0
    return {"incidents": rows, "incidents_note": f"{passed} batches were passed over (train.guard).{left_out}"}


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def curve(metrics: Sequence[dict[str, Any]], name: str, x_at: Callable[[int], float] = float) -> list[Point]:
    """(what a step stands for: itself, or tokens; value) of every finite value of a metric."""
    found = []
    for line in metrics:
        value = line.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            found.append((float(x_at(line["step"])), float(value)))
    return found


def duration(seconds: float) -> str:
    """8040.0 -> '2 h 14 min'."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def both(points: Sequence[Point], name: str = "") -> list[Line]:
    """The values, faint, under their smoothed line; few values alone."""
    if len(points) < _SMOOTH_FROM:
        return [Line(points, name)]
    smooth = f"{name}, smoothed" if name else ""
    return [Line(extremes(points), name, "faint"), Line(smoothed(points), smooth)]


def shown(points: Sequence[Point], form: str | None) -> str:
    if not points:
        return ""
    return human(points[-1][1]) if form is None else f"{points[-1][1]:{form}}"


def chart(
    title: str, unit: str, lines: Sequence[Line], last: str, *, x: str, wide: bool = False, from_zero: bool = False
) -> dict[str, Any] | None:
    """What the template shows of one chart; None where no line has a point. x: what its axis counts."""
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    values = [y for line in lines for _, y in line.points]
    log = not from_zero and min(values) > 0 and max(values) > _LOG_FROM * min(values)
    label = f"{title}, {unit}, by {x}"
    plot = draw(lines, label=label, log=log, y_from_zero=from_zero, x_from_zero=True, x_unit=x)
    legend = [(line.style, line.name) for line in lines if line.name]
    return {
        "title": title,
        "unit": unit + (", log scale" if log else ""),
        "last": last,
        "legend": legend,
        "plot": Markup(plot),
        "wide": wide,
    }


def _size(num_bytes: float) -> str:
    """1234567 -> '1.23 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


@cache
def template(name: str) -> Template:
    """A page's template, a file beside this one."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_source)
    )
    environment.filters.update(grouped=lambda number: f"{number:,}", size=_size)
    css = files("foundling.core").joinpath("report.css").read_text(encoding="utf-8")
    environment.globals["css"] = Markup(css)
    return environment.get_template(name)


def _source(name: str) -> str:
    return files("foundling.train").joinpath(name).read_text(encoding="utf-8")
