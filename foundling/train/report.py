"""A run folder for people: one HTML page that stands alone, made from what the folder holds.

It reads `manifest.json`, `recipe.yaml`, `metrics.jsonl`, `summary.json` and the manifests of the token stores. What is
not there (a run that was killed, a run without samples) is left out of the page.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from foundling.core.chart import Line, Point
from foundling.core.files import read_json, read_manifest, write_text
from foundling.core.units import human
from foundling.data.store import KIND as TOKEN_STORE
from foundling.train.page import REPORT_FILE, both, chart, curve, duration, incidents, read_metrics, shown, template
from foundling.train.settings import Settings


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

    @cached_property
    def settings(self) -> Settings:
        return Settings(**self.settled)

    def last(self, name: str) -> float | None:
        """The newest value of a metric that is a finite number, or None."""
        points = self.curve(name)
        return points[-1][1] if points else None

    def curve(self, name: str) -> list[Point]:
        """(tokens seen, value) of every finite value of a metric."""
        return curve(self.metrics, name, self.settings.tokens_at)


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a run folder, whole or not at all, and returns its path.

    Works at any time of a run from its first step on. Raises UserError where `folder` is no run folder, or damaged.
    """
    run = _read(folder)
    page = template("report.html.jinja").render(
        name=_name(run, folder),
        lead=_lead(run),
        figures=_figures(run),
        against=_against(run),
        charts=_charts(run),
        x="tokens seen",
        samples=run.summary.get("samples", []),
        sources=_sources(run),
        losses=_losses(run),
        scores=run.summary.get("perplexity", {}),
        **incidents(run.metrics),
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
        metrics=read_metrics(metrics) if metrics.exists() else [],
        summary=read_json(summary) if summary.exists() else {},
        stores=stores,
    )


def _name(run: _Folder, folder: Path) -> str:
    return run.manifest["settings"]["recipe"].get("name") or folder.name


def _lead(run: _Folder) -> str:
    """What became of the run, in a sentence."""
    recipe, total = run.manifest["settings"]["recipe"], run.settled["total_steps"]
    family = recipe["model"].get("family") or "language model"
    what = f"{human(run.manifest['counts']['weights'])} weights, {family}, trained by {recipe['objective']['kind']}"
    step = max((line["step"] for line in run.metrics), default=0)
    if run.summary.get("finished"):
        return f"{what}: {total:,} steps of {run.settings.tokens_per_step:,.0f} tokens, finished."
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
        (seconds, duration, "of training"),
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
    lines = [*both(loss, "training"), Line(valid, "validation", "warm", dots=True)]
    found = [chart("Loss", "nats a token", lines, shown(loss or valid, ".3f"), x="tokens", wide=True)]
    bits = run.curve("valid/bits_per_byte")
    found.append(
        chart("Validation", "bits per byte", [Line(bits, style="warm", dots=True)], shown(bits, ".3f"), x="tokens")
    )
    for title, unit, name, form, zero in (
        ("Gradient norm", "before clipping", "train/gradient_norm", ".3g", False),
        ("Learning rate", "peak × schedule", "train/lr", ".3g", True),
        ("Throughput", "tokens a second", "train/tokens_per_second", None, True),
    ):
        points = run.curve(name)
        drawn = [Line(points)] if name == "train/lr" else both(points)
        found.append(chart(title, unit, drawn, shown(points, form), x="tokens", from_zero=zero))
    return [one for one in found if one is not None]


def _losses(run: _Folder) -> list[dict[str, Any]]:
    """A row a source that is mixed: its tokens and its last losses; empty where there is one source."""
    prefix = "train/tokens/"
    names = dict.fromkeys(key.removeprefix(prefix) for line in run.metrics for key in line if key.startswith(prefix))
    return [
        {
            "name": name,
            "tokens": run.last(prefix + name),
            "train": run.last(f"train/loss/{name}"),
            "valid": run.last(f"valid/loss/{name}"),
        }
        for name in names
    ]


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
