"""Pictures of BENCHMARKS.md, drawn from its own tables.

    python -m benchmarks.plots

`docs/pictures/throughput.svg`: how many times as fast as Hugging Face's Trainer each family trains, a mark for each
comparison with its 95 % interval, and the goals. `docs/pictures/dial.svg`: bits per byte over the multiple of the
dial's rate, a line for each depth of the first table of the dial.
"""

import argparse
import math
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
GOALS: dict[str, dict[str, float]] = {
    "gpt": {"HF tuned": 2.5, "HF default": 12},
    "bert": {"HF tuned": 6, "HF default": 14},
    "xlnet": {"HF tuned": 4, "HF default": 15},
}
"""What is aimed at, by family and contender."""
_WIDTH, _LABEL, _ROW, _TOP = 860, 400, 24, 40
_END = 16.0
"""Largest ratio of the axis."""
_CURVES, _LEFT, _RIGHT = (640, 360), 70, 90
"""The dial's picture: width and height, and what is left beside its curves."""
_COLOURS = ("#2a6f97", "#c1440e", "#3a7d44", "#7b4b94", "#b08900", "#555")


@dataclass(frozen=True)
class Comparison:
    family: str
    peer: str
    where: str
    """Machine, rounds and steps."""
    ratio: float
    low: float
    high: float


def comparisons(text: str) -> list[Comparison]:
    """The rows with a ratio of the tables of track T1."""
    part = text.split("## Training throughput", 1)[1].split("\n## ", 1)[0]
    found, family, where = [], "", ""
    for line in part.splitlines():
        if heading := re.match(r"### (\w+):", line):
            family = heading[1]
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not family or len(cells) != 6:
            continue
        where = cells[0] or where
        bounds = re.match(r"([\d.]+) - ([\d.]+)$", cells[5])
        if bounds and re.fullmatch(r"[\d.]+", cells[4]):
            found.append(Comparison(family, cells[1], where, float(cells[4]), float(bounds[1]), float(bounds[2])))
    return found


@dataclass(frozen=True)
class Curve:
    """One depth's row of the dial's table."""

    depth: str
    """With its width: 2 x 128."""
    points: list[tuple[float, float]]
    """(Multiple of the dial's rate, bits per byte), in the order of the table."""


def curves(text: str) -> list[Curve]:
    """The rows of the dial's first table; multiples that a row has no figure for are left out."""
    part = text.split("## One dial", 1)[-1].split("\n## ", 1)[0]
    found, times = list[Curve](), list[tuple[int, float]]()
    for line in part.splitlines():
        cells = [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")]
        if cells[0] == "depth x width":
            if times:
                break
            said = [(place, re.fullmatch(r"([\d.]+) times", cell)) for place, cell in enumerate(cells)]
            times = [(place, float(match[1])) for place, match in said if match]
        elif times and re.fullmatch(r"\d+ x \d+", cells[0]):
            points = [(x, float(cells[at])) for at, x in times if re.fullmatch(r"\d+\.\d+", cells[at])]
            found.append(Curve(cells[0], points))
    return found


def drawn_curves(rows: list[Curve]) -> str:
    """An SVG: a line for each depth, multiples of the rate to the right, doublings equally far, its best one filled."""
    width, height = _CURVES
    xs, ys = (sorted({point[axis] for row in rows for point in row.points}) for axis in (0, 1))
    low, high = math.floor(20 * ys[0]) / 20, math.ceil(20 * ys[-1]) / 20
    across = max(math.log2(xs[-1] / xs[0]), 1e-9)
    place_x = lambda x: _LEFT + (width - _LEFT - _RIGHT) * math.log2(x / xs[0]) / across
    place_y = lambda y: height - 50 - (height - 50 - _TOP) * (y - low) / max(high - low, 1e-9)
    parts = [
        *_paper(width, height),
        '<text x="10" y="20" font-weight="bold">Bits per byte over the multiple of the dial\'s rate, by depth x width; '
        "filled is the best</text>",
    ]
    for tick in (low + 0.05 * number for number in range(round(20 * (high - low)) + 1)):
        parts.append(_rule(_LEFT, place_y(tick), width - _RIGHT, place_y(tick), "#e4e4e4", 1))
        parts.append(
            f'<text x="{_LEFT - 8}" y="{place_y(tick) + 4:.1f}" text-anchor="end" fill="#666">{tick:.2f}</text>'
        )
    for x in xs:
        parts.append(_rule(place_x(x), _TOP, place_x(x), height - 50, "#888" if x == 1 else "#e4e4e4", 1))
        parts.append(f'<text x="{place_x(x):.1f}" y="{height - 30}" text-anchor="middle" fill="#666">{x:g}</text>')
    for number, row in enumerate(rows):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in row.points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        best = min(y for _, y in row.points)
        for x, y in row.points:
            fill = colour if y == best else "white"
            circle = f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="4" fill="{fill}" stroke="{colour}"/>'
            parts.append(circle)
    below = 0.0
    for row in sorted(rows, key=lambda row: -row.points[-1][1]):  # names do not lie on one another
        end_x, end_y = row.points[-1]
        below = max(place_y(end_y) + 4, below + 14)
        colour = _COLOURS[rows.index(row) % len(_COLOURS)]
        parts.append(f'<text x="{place_x(end_x) + 10:.1f}" y="{below:.1f}" fill="{colour}">{escape(row.depth)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def drawn(rows: list[Comparison]) -> str:
    """An SVG: a line for each comparison, ratios to the right, 1 (as fast) as a rule."""
    height = _TOP + _ROW * len(rows) + 30
    parts = [
        *_paper(_WIDTH, height),
        '<text x="10" y="20" font-weight="bold">Useful tokens/s: foundling / contender, with 95 % interval; red is the '
        "goal</text>",
    ]
    for tick in (1, 2, 4, 6, 8, 10, 12, 14, 16):
        parts.append(_rule(_x(tick), _TOP - 8, _x(tick), height - 24, "#888" if tick == 1 else "#e4e4e4", 1))
        parts.append(f'<text x="{_x(tick):.1f}" y="{height - 8}" text-anchor="middle" fill="#666">{tick}</text>')
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number + 8
        label = f"{row.family} / {row.peer}: {row.where}"
        parts.append(f'<text x="10" y="{y + 4}">{escape(label if len(label) < 64 else label[:61] + "...")}</text>')
        parts.append(_rule(_x(row.low), y, _x(row.high), y, "#2a6f97", 3))
        parts.append(f'<circle cx="{_x(row.ratio):.1f}" cy="{y}" r="4.5" fill="#2a6f97"/>')
        if (goal := GOALS.get(row.family, {}).get(row.peer)) is not None:
            parts.append(_rule(_x(goal), y - 8, _x(goal), y + 8, "#c1440e", 2))
    return "\n".join([*parts, "</svg>", ""])


def _paper(width: int, height: int) -> list[str]:
    size = f'width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return [head, f'<rect {size} fill="white"/>']


def _x(ratio: float) -> float:
    return _LABEL + (_WIDTH - _LABEL - 20) * min(ratio, _END) / _END


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str, width: int) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    text = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")
    rows, dial = comparisons(text), curves(text)
    if not rows or not dial:
        missing = "training throughput with a ratio" if not rows else "the dial"
        raise SystemExit(
            f"BENCHMARKS.md must hold tables of training throughput and of the dial; got none of {missing}"
        )
    pictures = {
        "throughput.svg": (drawn(rows), f"{len(rows)} comparisons"),
        "dial.svg": (drawn_curves(dial), f"{len(dial)} depths"),
    }
    for name, (picture, told) in pictures.items():
        path = ROOT / "docs" / "pictures" / name
        path.write_text(picture, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {told}")


if __name__ == "__main__":
    main()
