"""A fine-tuning for people: one HTML page that stands alone, made from what the run folder holds.

It reads `summary.json`, `metrics.jsonl`, `manifest.json`, `recipe.yaml` and the answers to dev and test. What is shown
of the answers depends on their shape (`cases.py`), so every task has a page.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from foundling.core.chart import Line, draw
from foundling.core.files import read_json, read_manifest, write_text
from foundling.core.units import human
from foundling.train.cases import Cases, Confusion, cases_of
from foundling.train.page import (
    REPORT_FILE,
    both,
    chart,
    curve,
    duration,
    incidents,
    read_lines,
    read_metrics,
    shown,
    template,
)

_SPLITS = ("dev", "test")
_NUM_WORST = 20
_LONGEST_TEXT = 600
"""Characters of a text that are shown."""
_MOST_LABELS = 20
"""Rows of the matrix; of more labels the rarest are put together."""
_DEV_CURVES = 4


@dataclass(frozen=True)
class _Folder:
    """What a run folder says."""

    summary: dict[str, Any]
    manifest: dict[str, Any]
    """Of the best seed, like recipe and metrics, where there are several."""
    recipe: str
    metrics: list[dict[str, Any]]
    answers: dict[str, list[dict[str, Any]]]
    """The lines of the answers files, by split."""

    @property
    def said(self) -> dict[str, Any]:
        """The recipe as data."""
        found: dict[str, Any] = self.manifest["settings"]["recipe"]
        return found

    @property
    def splits(self) -> list[str]:
        return [split for split in _SPLITS if split in self.summary]

    @property
    def detailed(self) -> str:
        """The split whose answers are shown one by one: test where there is one."""
        return self.splits[-1] if self.splits else ""


def write_finetune_report(folder: Path) -> Path:
    """Writes `report.html` into the folder of a fine-tuning, whole or not at all, and returns its path.

    UserError: no run folder, one that is not finished, or damaged.
    """
    run = _read(folder)
    found = cases_of(run.answers.get(run.detailed, []))
    seeds = run.summary.get("seeds", {})
    several = next((spread["num_seeds"] for each in seeds.values() for spread in each.values()), 0)
    page = template("finetune_report.html.jinja").render(
        name=run.said.get("name") or folder.name,
        lead=_lead(run),
        figures=_figures(run),
        charts=_charts(run),
        x="steps",
        splits=run.splits,
        split=run.detailed,
        seeds=several,
        best_seed=run.summary.get("best_seed"),
        table=_table(run, bool(several)),
        computed=list(run.summary.get(run.detailed, {}).get("settings", {}).values()),
        **_details(run, found),
        **incidents(run.metrics),
        inputs=run.manifest["inputs"],
        recipe=run.recipe,
        settled=run.manifest["settings"]["settled"],
        machine=run.manifest["machine"] | run.manifest["code"],
    )
    write_text(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def _read(folder: Path) -> _Folder:
    summary = read_json(folder / "summary.json")
    own = folder / f"seed-{summary['best_seed']}" if "best_seed" in summary else folder
    recipe, metrics = own / "recipe.yaml", own / "metrics.jsonl"
    answers = {split: folder / f"answers-{split}.jsonl" for split in _SPLITS}
    return _Folder(
        summary=summary,
        manifest=read_manifest(own, "run"),
        recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else "",
        metrics=read_metrics(metrics) if metrics.exists() else [],
        answers={split: read_lines(path) for split, path in answers.items() if path.exists()},
    )


def _lead(run: _Folder) -> str:
    """What it is and what became of it."""
    counts, settled = run.manifest["counts"], run.manifest["settings"]["settled"]
    base = run.said.get("base") or "initial weights"
    there = [split for split in ("train", *_SPLITS) if f"{split}_examples" in counts]
    examples = ", ".join(f"{counts[f'{split}_examples']:,} {split}" for split in there)
    steps, total = run.summary["steps"], settled["total_steps"]
    how = f"{steps:,} steps" if run.summary["finished"] else f"stopped after step {steps:,} of {total:,}"
    weights = human(counts["weights"])
    return f"{run.said['task']['kind']}, from {base} ({weights} weights); {examples} examples; {how}."


def _figures(run: _Folder) -> list[tuple[str, str]]:
    """(number, what it is) for the head of the page."""
    summary, found = run.summary, []
    for name in _main(summary.get(run.detailed, {}))[:2]:
        low, high = summary[run.detailed]["intervals"][name]
        value = summary[run.detailed][name]
        found.append((_number(value), f"{name} on {run.detailed}, {_between(low, high)}"))
    best = run.summary["best_step"]
    at = f"of training, best weights at step {best:,}" if "dev" in run.splits else "of training"
    found.append((duration(summary["seconds"]), at))
    if summary.get("tokens_per_second"):
        found.append((human(summary["tokens_per_second"]), "tokens a second"))
    return found


def _main(judged: Mapping[str, Any]) -> list[str]:
    """Names of figures that are of all examples, not of one label."""
    return [name for name in judged.get("intervals", {}) if "/" not in name]


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"


def _between(low: float, high: float) -> str:
    return "–" if math.isnan(low) or math.isnan(high) else f"{_number(low)} to {_number(high)}"


def _charts(run: _Folder) -> list[dict[str, Any]]:
    loss = curve(run.metrics, "train/loss")
    found = [chart("Training loss", "mean of a step", both(loss), shown(loss, ".3f"), x="steps", wide=True)]
    names = dict.fromkeys(name for line in run.metrics for name in line if name.startswith("dev/"))
    for name in [name for name in names if name.count("/") == 1][:_DEV_CURVES]:
        points = curve(run.metrics, name)
        line = Line(points, style="warm", dots=True)
        found.append(chart(name.removeprefix("dev/"), "on dev", [line], shown(points, ".4g"), x="steps"))
    rate = curve(run.metrics, "train/lr")
    found.append(chart("Learning rate", "of the head", [Line(rate)], shown(rate, ".3g"), x="steps", from_zero=True))
    return [one for one in found if one is not None]


def _table(run: _Folder, several: bool) -> list[dict[str, Any]]:
    """A row a figure: its value and interval on each split, and what it is over several seeds."""
    rows = []
    for name in dict.fromkeys(name for split in run.splits for name in _main(run.summary[split])):
        cells = []
        for split in run.splits:
            judged = run.summary[split]
            cells += [_number(judged.get(name)), _between(*judged["intervals"].get(name, (math.nan, math.nan)))]
            if several:
                spread = run.summary["seeds"][split].get(name)
                cells.append(f"{_number(spread['mean'])} ± {_number(spread['std'])}" if spread else "–")
        rows.append({"name": name, "cells": cells})
    return rows


def _details(run: _Folder, found: Cases | None) -> dict[str, Any]:
    """What the template shows of the answers themselves."""
    if found is None:
        return dict.fromkeys(("matrix", "labels", "calibration", "lengths", "worst"))
    intervals = run.summary[run.detailed].get("intervals", {})
    worst = found.worst(_NUM_WORST)
    wrong = sum(case.score < found.best for case in found.cases)
    order = "the least right first" if found.best != 1.0 else "the most confident first"
    return {
        "matrix": _matrix(found.confusion) if found.confusion else None,
        "labels": [
            {
                "label": one.label,
                "true": one.true,
                "said": one.said,
                "precision": _number(one.precision),
                "recall": _number(one.recall),
                "f1": _number(one.f1),
                "interval": _between(*intervals.get(f"f1/{one.label}", (math.nan, math.nan))),
            }
            for one in found.labels
        ],
        "calibration": _reliability(found),
        "calibration_note": _calibration_note(run, found),
        "measure": found.measure,
        "lengths": _lengths(found),
        "worst": [
            {
                "said": _cut(case.said),
                "true": _cut(case.true),
                "text": _cut(case.text),
                "note": _note(found, case.score, case.confidence),
            }
            for case in worst
        ],
        "worst_note": f"{len(worst)} of {wrong:,} answers to {run.detailed} that are not wholly right, {order}.",
    }


def _note(found: Cases, score: float, confidence: float | None) -> str:
    parts = [f"probability {confidence:.3f}"] if confidence is not None else []
    if score > 0 or found.best != 1.0:
        parts.append(f"{found.measure.removeprefix('mean ').split(' of ')[0]} {found.form(score)}")
    return ", ".join(parts)


def _matrix(found: Confusion) -> dict[str, Any]:
    """The matrix, its rarest labels put together where there are too many to read."""
    labels, counts_KK = found.labels, found.counts_KK
    if len(labels) > _MOST_LABELS:
        order = np.argsort(-(counts_KK.sum(0) + counts_KK.sum(1)), kind="stable")
        kept = sorted(order[: _MOST_LABELS - 1].tolist())
        group = np.full(len(labels), len(kept))
        group[kept] = np.arange(len(kept))
        merged = np.zeros((len(kept) + 1, len(kept) + 1), dtype=np.int64)
        np.add.at(merged, (group[:, None], group[None, :]), counts_KK)
        labels, counts_KK = [*(labels[k] for k in kept), f"{len(labels) - len(kept)} others"], merged
    rows = []
    for i, (label, counts_K) in enumerate(zip(labels, counts_KK.tolist(), strict=True)):
        total = max(1, sum(counts_K))
        cells = [{"count": n, "share": round(60 * n / total), "right": i == j} for j, n in enumerate(counts_K)]
        rows.append({"label": label, "cells": cells})
    return {"labels": labels, "rows": rows}


def _reliability(found: Cases) -> Markup | None:
    if not found.curve:
        return None
    points = [(one.confidence, one.accuracy) for one in found.curve]
    lines = [Line([(0.0, 0.0), (1.0, 1.0)], style="faint"), Line(points, dots=True)]
    label = "share of answers that are right, by their probability"
    return Markup(draw(lines, label=label, x_from_zero=True, y_from_zero=True, y_format=lambda share: f"{share:.2g}"))


def _calibration_note(run: _Folder, found: Cases) -> str:
    temperature = run.summary.get("facts", {}).get("temperature")
    fitted = "no temperature was fitted" if temperature is None else f"temperature {temperature:g}, fitted on dev"
    apart = [one.num_examples * abs(one.confidence - one.accuracy) for one in found.curve]
    error = sum(apart) / max(1, sum(one.num_examples for one in found.curve))
    fitted += f"; expected calibration error {error:.3f}"
    return f"Answers to {run.detailed}; {fitted}. On the thin line probabilities mean what they say, below it too much."


def _lengths(found: Cases) -> list[dict[str, Any]]:
    groups = found.by_length()
    if len(groups) < 2:
        return []
    top = max(abs(mean) for *_, mean in groups) or 1.0
    return [
        {
            "range": f"{low:,} to {high:,}" if low < high else f"{low:,}",
            "examples": number,
            "mean": found.form(mean),
            "share": f"{100 * abs(mean) / top:.2f}",
        }
        for low, high, number, mean in groups
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"
