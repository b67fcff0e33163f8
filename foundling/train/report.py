"""A run folder for people: one HTML page that stands alone, made from what the folder holds.

It reads `manifest.json`, `recipe.yaml`, `metrics.jsonl`, `summary.json` and the manifests of the token stores. What is
not there (a run that was killed, a run without samples) is left out of the page.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from foundling.core.chart import Line, Point, draw, extremes, smoothed
from foundling.core.errors import UserError
from foundling.core.files import read_json, read_manifest, write_text
from foundling.core.units import human
from foundling.data.store import KIND as TOKEN_STORE

REPORT_FILE = "report.html"
_SMOOTH_FROM = 20
"""Fewer points than this are a line as they are."""
_LOG_FROM = 3.0
"""A curve whose highest value is so many times its lowest is drawn on a log axis."""


@dataclass(frozen=True)
class _Folder:
    """What a run folder says of its run."""

    manifest: dict[str, Any]
    recipe: str
    """The resolved recipe, as its YAML text."""
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    """Empty for a run that was killed before it could write one."""
    stores: list[dict[str, Any]]
    """Manifests of the token stores in the folder, by name."""

    @property
    def settled(self) -> dict[str, Any]:
        return self.manifest["settings"]["settled"]

    @property
    def tokens_per_step(self) -> int:
        return self.settled["row_length"] * self.settled["batch_rows"]

    def last(self, name: str) -> float | None:
        """The newest value of a metric that is a finite number, or None."""
        points = self.curve(name)
        return points[-1][1] if points else None

    def curve(self, name: str) -> list[Point]:
        """(tokens seen, value) of every finite value of a metric."""
        found = []
        for line in self.metrics:
            value = line.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                found.append((float(line["step"] * self.tokens_per_step), float(value)))
        return found


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a run folder, whole or not at all, and returns its path.

    Works at any time of a run from its first step on. Raises UserError where `folder` is no run folder, or damaged.
    """
    run = _read(folder)
    page = _template().render(
        name=_name(run, folder),
        lead=_lead(run),
        figures=_figures(run),
        against=_against(run),
        charts=_charts(run),
        samples=run.summary.get("samples", []),
        sources=_sources(run),
        scores=run.summary.get("perplexity", {}),
        inputs=run.manifest["inputs"],
        recipe=run.recipe,
        settled=run.settled,
        machine=run.manifest["machine"] | run.manifest["code"],
    )
    write_text(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def _read(folder: Path) -> _Folder:
    manifest = read_manifest(folder, "run")
    recipe, metrics, summary = (folder / name for name in ("recipe.yaml", "metrics.jsonl", "summary.json"))
    stores = [read_manifest(path, TOKEN_STORE) for path in sorted(folder.glob("tokens-*")) if path.is_dir()]
    return _Folder(
        manifest=manifest,
        recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else "",
        metrics=_lines(metrics) if metrics.exists() else [],
        summary=read_json(summary) if summary.exists() else {},
        stores=stores,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
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


def _name(run: _Folder, folder: Path) -> str:
    return run.manifest["settings"]["recipe"].get("name") or folder.name


def _lead(run: _Folder) -> str:
    """What became of the run, in a sentence."""
    recipe, total = run.manifest["settings"]["recipe"], run.settled["total_steps"]
    family = recipe["model"].get("family") or "language model"
    what = f"{human(run.manifest['counts']['weights'])} weights, {family}, trained by {recipe['objective']['kind']}"
    step = max((line["step"] for line in run.metrics), default=0)
    if run.summary.get("finished"):
        return f"{what}: {total:,} steps of {run.tokens_per_step:,} tokens, finished."
    if run.summary:
        return f"{what}: stopped after step {run.summary['steps']:,} of {total:,}; --resume goes on."
    return f"{what}: at step {step:,} of {total:,}, not finished."


def _figures(run: _Folder) -> list[tuple[str, str]]:
    """(number, what it is) for the head of the page."""
    summary, counts = run.summary, run.manifest["counts"]
    seen = summary.get("tokens") or max((int(x) for x, _ in run.curve("train/loss")), default=0)
    seconds = summary.get("seconds") or run.last("train/seconds")
    rate = summary.get("tokens_per_second") or run.last("train/tokens_per_second")
    share = summary.get("share_of_matmul_limit") or run.last("train/share_of_matmul_limit")
    score, loss, perplexity = _score(run, "bits_per_byte"), _score(run, "loss"), _score(run, "perplexity")
    found = [
        (score, lambda v: f"{v:.3f}", "bits per byte of text it never saw"),
        (loss, lambda v: f"{v:.3f}", "validation loss, nats a token"),
        (perplexity, lambda v: f"{v:.4g}", "perplexity, by token"),
        (run.last("train/loss"), lambda v: f"{v:.3f}", "training loss, last"),
        (seen, human, f"tokens seen, {seen / max(1, counts['train_tokens']):.2g} epochs"),
        (seconds, _duration, "of training"),
        (rate, human, "tokens a second"),
        (share, lambda v: f"{100 * v:.0f} %", "of the machine's matmul limit"),
    ]
    return [(show(value), what) for value, show, what in found if value is not None]


def _score(run: _Folder, name: str) -> float | None:
    """The final figure on text that was never trained on: of the whole text where it was scored, else validation's."""
    summary = run.summary
    for figures in (summary.get("perplexity", {}).get("total", {}), summary.get("test", {}), summary.get("valid", {})):
        if figures.get(name) is not None:
            return figures[name]
    return run.last(f"valid/{name}")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _against(run: _Folder) -> list[dict[str, Any]]:
    """The model beside the compressors, best first; empty where no compressor was tried."""
    others, own = run.summary.get("compression") or {}, _score(run, "bits_per_byte")
    if not others or own is None:
        return []
    rows: list[dict[str, Any]] = [{"name": "this model", "bits": own, "own": True}]
    rows += [{"name": name, "bits": bits, "own": False} for name, bits in others.items()]
    top = max(row["bits"] for row in rows)
    return [row | {"share": row["bits"] / top} for row in sorted(rows, key=lambda row: row["bits"])]


def _charts(run: _Folder) -> list[dict[str, Any]]:
    loss, valid = run.curve("train/loss"), run.curve("valid/loss")
    lines = [*_both(loss, "training"), Line(valid, "validation", "warm", dots=True)]
    found = [_chart("Loss", "nats a token", lines, _shown(loss or valid, ".3f"), wide=True)]
    bits = run.curve("valid/bits_per_byte")
    found.append(_chart("Validation", "bits per byte", [Line(bits, style="warm", dots=True)], _shown(bits, ".3f")))
    for title, unit, name, form, zero in (
        ("Gradient norm", "before clipping", "train/gradient_norm", ".3g", False),
        ("Learning rate", "peak × schedule", "train/lr", ".3g", True),
        ("Throughput", "tokens a second", "train/tokens_per_second", None, True),
    ):
        points = run.curve(name)
        drawn = [Line(points)] if name == "train/lr" else _both(points)
        found.append(_chart(title, unit, drawn, _shown(points, form), from_zero=zero))
    return [chart for chart in found if chart is not None]


def _both(points: Sequence[Point], name: str = "") -> list[Line]:
    """The values, faint, under their smoothed line; few values alone."""
    if len(points) < _SMOOTH_FROM:
        return [Line(points, name)]
    smooth = f"{name}, smoothed" if name else ""
    return [Line(extremes(points), name, "faint"), Line(smoothed(points), smooth)]


def _shown(points: Sequence[Point], form: str | None) -> str:
    if not points:
        return ""
    return human(points[-1][1]) if form is None else f"{points[-1][1]:{form}}"


def _chart(
    title: str, unit: str, lines: Sequence[Line], last: str, *, wide: bool = False, from_zero: bool = False
) -> dict[str, Any] | None:
    """What the template shows of one chart; None where no line has a point."""
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    values = [y for line in lines for _, y in line.points]
    log = not from_zero and min(values) > 0 and max(values) > _LOG_FROM * min(values)
    label = f"{title}, {unit}, by tokens"
    plot = draw(lines, label=label, log=log, y_from_zero=from_zero, x_from_zero=True, x_unit="tokens")
    legend = [(line.style, line.name) for line in lines if line.name]
    return {
        "title": title,
        "unit": unit + (", log scale" if log else ""),
        "last": last,
        "legend": legend,
        "plot": Markup(plot),
        "wide": wide,
    }


def _sources(run: _Folder) -> list[dict[str, Any]]:
    """A row a source: what of it was tokenized."""
    rows: dict[str, dict[str, Any]] = {}
    for store in run.stores:
        for split, counts in store["counts"].items():
            for source, pair in counts["by_source"].items():
                row = rows.setdefault(source, {"documents": 0, "bytes": 0, "train": 0, "valid": 0})
                row["documents"] += pair["documents"]
                row["bytes"] += pair["bytes"]
                row[split] += pair["tokens"]
    return [{"name": name, **row} for name, row in rows.items()]


def _size(num_bytes: float) -> str:
    """1234567 -> '1.23 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(grouped=lambda number: f"{number:,}", size=_size)
    css = files("foundling.core").joinpath("report.css").read_text(encoding="utf-8")
    environment.globals["css"] = Markup(css)
    return environment.from_string(files("foundling.train").joinpath("report.html.jinja").read_text(encoding="utf-8"))
