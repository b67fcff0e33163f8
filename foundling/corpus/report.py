"""A corpus folder's figures for people: one HTML page that stands alone, made from what the manifest holds."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from foundling.core.registry import load_part, part_names
from foundling.corpus.diff import pieces, visible

_MAX_TAGS = 40
_PRIVACY = "privacy"
_SIZES = ("num_documents", "num_bytes", "num_words")

WORDS = (
    "a token is here a word: a run of letters and digits or, in scripts without spaces (Chinese, Japanese, Thai, Lao, "
    "Khmer, Burmese), one character"
)
"""What is counted as a token where no tokenizer is known yet."""


def render(counts: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The page. counts, settings: as in the manifest."""
    return _template().render(
        css=files("foundling.core").joinpath("report.css").read_text(encoding="utf-8"),
        name=_name(list(counts["sources"])),
        lead=_lead(counts),
        figures=_figures(counts),
        words=WORDS,
        stages=_stages(counts),
        drops=_drops(counts),
        changes=_changes(counts),
        found=_found(counts),
        clusters=_clusters(counts),
        lines=_boilerplate(counts),
        summaries=_other_summaries(counts),
        problems=counts["problems"],
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
        if abs(num_bytes) < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def percent(share: float) -> str:
    """0.12345 -> '12.3 %'; what is not nothing is never shown as 0."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %".replace(".0 %", " %")


@cache
def _template() -> Template:
    text = files("foundling.corpus").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(size=size, grouped=lambda number: f"{number:,}", percent=percent, visible=visible)
    return environment.from_string(text)


def _share(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole else 0.0


def _num_changed(counts: Mapping[str, Any]) -> int:
    return sum(step["num_changed"] for step in counts["steps"])


def _lead(counts: Mapping[str, Any]) -> str:
    """What became of it, in a sentence or two."""
    read, kept = counts["num_documents_read"], counts["num_documents"]
    share = percent(_share(counts["num_bytes"], counts["num_bytes_read"]))
    text = f"{kept:,} of {read:,} documents stay, with {share} of the text."
    taking = {step["step"]: sum(step["dropped"].values()) for step in counts["steps"]}
    most = max(taking, key=taking.__getitem__, default=None)
    if most is not None and taking[most]:
        text += f" Most of what went was taken by {most} ({taking[most]:,})."
    lost = sum(problem["count"] for kind, problem in counts["problems"].items() if kind.startswith("malformed"))
    if lost:
        text += f" {lost:,} lines or rows could not be read."
    return text


def _figures(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(number, what it is) for the head of the page."""
    splits = counts["splits"]
    found = [
        (f"{counts['num_documents']:,}", f"documents kept of {counts['num_documents_read']:,}"),
        (size(counts["num_bytes"]), f"of text kept of {size(counts['num_bytes_read'])}"),
        (f"{counts['num_words']:,}", f"tokens (words) kept of {counts['num_words_read']:,}"),
        (f"{splits['train']['num_documents']:,}", f"train documents, {size(splits['train']['num_bytes'])}"),
        (f"{splits['valid']['num_documents']:,}", f"valid documents, {size(splits['valid']['num_bytes'])}"),
    ]
    dropped = sum(sum(step["dropped"].values()) for step in counts["steps"])
    personal = sum(
        number
        for step in counts["steps"]
        for what, number in step["found"].items()
        if step["step"] == _PRIVACY and what != "url"  # of which many stand in any text, and stay
    )
    duplicates = sum(
        number for step in counts["steps"] for reason, number in step["dropped"].items() if "duplicate" in reason
    )
    more = [
        (dropped, f"documents dropped, {percent(_share(dropped, counts['num_documents_read']))}"),
        (duplicates, "of them duplicates"),
        (_num_changed(counts), "times a step changed a document"),
        (personal, "pieces of personal data found"),
    ]
    return [*found, *((f"{number:,}", what) for number, what in more if number)]


def _stages(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was read, then what each step left, took and changed, with shares of what was read."""
    read = {name: counts[f"{name}_read"] for name in _SIZES}
    rows: list[dict[str, Any]] = [{"name": "read", **read, "dropped": 0, "changed": 0}]
    rows += [
        {
            "name": step["step"],
            **{name: step[name] for name in _SIZES},
            "dropped": sum(step["dropped"].values()),
            "changed": step["num_changed"],
        }
        for step in counts["steps"]
    ]
    for row in rows:
        row["dropped_share"] = _share(row["dropped"], read["num_documents"])
        row["share"] = {name: _share(row[name], read[name]) for name in _SIZES}
    return rows


def _drops(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every step and reason that took documents, with examples, the largest first."""
    found = [
        {
            "step": step["step"],
            "reason": reason,
            "meaning": reason_meaning(step["step"], reason),
            "count": number,
            "share": _share(number, counts["num_documents_read"]),
            "examples": step["examples"].get(reason, ()),
        }
        for step in counts["steps"]
        for reason, number in step["dropped"].items()
    ]
    found.sort(key=lambda drop: -drop["count"])
    top = max((drop["count"] for drop in found), default=1)
    return [{**drop, "bar": drop["count"] / top} for drop in found]


def _changes(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every step that changed texts, with the changes of some."""
    return [
        {
            "step": step["step"],
            "count": step["num_changed"],
            "share": _share(step["num_changed"], step["num_documents_in"]),
            "num_bytes": step["num_bytes_in"] - step["num_bytes"] if not step["dropped"] else None,
            "examples": [
                {"id": example["id"], "pieces": pieces(example["before"], example["after"])}
                for example in step["changes"]
            ],
        }
        for step in counts["steps"]
        if step["num_changed"]
    ]


def _found(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the steps found in texts: personal data first."""
    steps = sorted(counts["steps"], key=lambda step: step["step"] != _PRIVACY)
    rows = [
        {"step": step["step"], "what": what.replace("_", " "), "count": number}
        for step in steps
        for what, number in sorted(step["found"].items(), key=lambda item: (-item[1], item[0]))
    ]
    top = max((row["count"] for row in rows), default=1)
    return [{**row, "share": row["count"] / top} for row in rows]


def _summaries(counts: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(step["step"], step["summary"]) for step in counts["steps"] if step.get("summary")]


def _clusters(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The largest clusters of duplicates, of every step that tells any."""
    found = [
        {"step": name, **cluster}
        for name, summary in _summaries(counts)
        for cluster in summary.get("largest_clusters", ())
    ]
    return sorted(found, key=lambda cluster: -cluster["num_duplicates"])


def _boilerplate(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lines that were removed from many documents, of every step that tells any."""
    return [line for _, summary in _summaries(counts) for line in summary.get("lines", ())]


def _other_summaries(counts: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Whatever else the steps tell of themselves, as (key, value) rows."""
    found = []
    for name, summary in _summaries(counts):
        rest = {key: value for key, value in summary.items() if key not in ("largest_clusters", "lines")}
        rows = [
            (key.replace("_", " "), json.dumps(value, ensure_ascii=False).strip('"')) for key, value in rest.items()
        ]
        found += [(name, rows)] if rows else []
    return found


def _largest(tags: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    top = max(sums["num_bytes"] for sums in tags.values()) or 1
    order = sorted(tags.items(), key=lambda item: (-item[1]["num_bytes"], item[0]))
    rows = [{"name": name, **sums, "share": sums["num_bytes"] / top} for name, sums in order[:_MAX_TAGS]]
    if rest := [sums for _, sums in order[_MAX_TAGS:]]:
        sums = {name: sum(tag[name] for tag in rest) for name in _SIZES}
        rows.append({"name": f"{len(rest)} others", **sums, "share": min(1.0, sums["num_bytes"] / top)})
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
