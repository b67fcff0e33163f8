"""A corpus folder's figures for people: one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from foundling.core.registry import load_part, part_names

_MAX_TAGS = 40


def render(
    counts: Mapping[str, Any],
    settings: Mapping[str, Any],
    samples: Mapping[tuple[str, str], Sequence[tuple[str, str]]],
) -> str:
    """The page. counts: as in the manifest. samples: (step, reason) -> [(document id, its beginning)]."""
    drops = [
        {
            "step": step["step"],
            "reason": reason,
            "meaning": reason_meaning(step["step"], reason),
            "count": count,
            "share": count / counts["num_documents_read"],
            "samples": samples.get((step["step"], reason), ()),
        }
        for step in counts["steps"]
        for reason, count in step["dropped"].items()
    ]
    return _template().render(
        name=_name(list(counts["sources"])),
        counts=counts,
        drops=drops,
        stages=_stages(counts),
        tags=[(tag, _largest(counts[tag])) for tag in ("sources", "domains", "languages") if counts[tag]],
        bars=_bars(counts["lengths"]),
        settings=settings,
    )


def _name(sources: Sequence[str]) -> str:
    rest = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
    return ", ".join(sources[:3]) + rest


@cache
def reason_meaning(step: str, reason: str) -> str:
    """What a drop reason says, from the step's own file; the reason itself where the step is not installed."""
    if step not in part_names("corpus.steps"):
        return reason
    return load_part("corpus.steps", step).REASONS.get(reason, reason)


def size(num_bytes: float) -> str:
    """1234567 -> '1.23 MB': three figures, decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


@cache
def _template() -> Template:
    text = files("foundling.corpus").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(size=size, grouped=lambda number: f"{number:,}", percent=lambda x: f"{100 * x:.3g} %")
    return environment.from_string(text)


def _stages(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was read, then what each step left, with shares of what was read."""
    rows = [{"name": "read", "num_documents": counts["num_documents_read"], "num_bytes": counts["num_bytes_read"]}]
    rows += [
        {"name": step["step"], "num_documents": step["num_documents"], "num_bytes": step["num_bytes"]}
        for step in counts["steps"]
    ]
    for row in rows:
        row["document_share"] = row["num_documents"] / max(1, counts["num_documents_read"])
        row["byte_share"] = min(1.0, row["num_bytes"] / max(1, counts["num_bytes_read"]))
    return rows


def _largest(pairs: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    top = max(pair["num_bytes"] for pair in pairs.values()) or 1
    order = sorted(pairs.items(), key=lambda item: (-item[1]["num_bytes"], item[0]))
    rows = [{"name": name, **pair, "share": pair["num_bytes"] / top} for name, pair in order[:_MAX_TAGS]]
    if len(order) > _MAX_TAGS:
        rest = [pair for _, pair in order[_MAX_TAGS:]]
        documents, num_bytes = (sum(pair[key] for pair in rest) for key in ("num_documents", "num_bytes"))
        share = min(1.0, num_bytes / top)
        name = f"{len(rest)} others"
        rows.append({"name": name, "num_documents": documents, "num_bytes": num_bytes, "share": share})
    return rows


def _bars(lengths: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Histogram bars by octave of characters, empty octaves between included."""
    found = dict(lengths)
    lows = [0] * (0 in found)
    low = min((low for low in found if low), default=0)
    while low and low <= max(found):
        lows.append(low)
        low *= 2
    top = max(found.values())
    return [
        {
            "label": f"{low >> 20}M" if low >> 20 else f"{low >> 10}K" if low >> 10 else str(low),
            "range": f"{low} to {max(0, 2 * low - 1)} characters",
            "count": found.get(low, 0),
            "height": found.get(low, 0) / top,
        }
        for low in lows
    ]
