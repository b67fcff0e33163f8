"""Pictures of BENCHMARKS.md, drawn from its own tables.

    python -m benchmarks.plots

`docs/pictures/throughput.svg`: how many times as fast as Hugging Face's Trainer each family trains, a mark for each
comparison with its 95 % interval, and the goals.
"""

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
GOALS = {
    "gpt": {"HF tuned": 2.5, "HF default": 12},
    "bert": {"HF tuned": 4, "HF default": 9},
    "xlnet": {"HF tuned": 3, "HF default": 10},
}
"""What is aimed at next, by family and contender; BENCHMARKS.md names further ones."""
_WIDTH, _LABEL, _ROW, _TOP = 860, 400, 24, 40
_END = 16.0
"""Largest ratio of the axis."""


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


def drawn(rows: list[Comparison]) -> str:
    """An SVG: a line for each comparison, ratios to the right, 1 (as fast) as a rule."""
    height = _TOP + _ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
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


def _x(ratio: float) -> float:
    return _LABEL + (_WIDTH - _LABEL - 20) * min(ratio, _END) / _END


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str, width: int) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def main() -> None:
    rows = comparisons((ROOT / "BENCHMARKS.md").read_text(encoding="utf-8"))
    if not rows:
        raise SystemExit("BENCHMARKS.md must hold tables of training throughput; got none with a ratio")
    path = ROOT / "docs" / "pictures" / "throughput.svg"
    path.write_text(drawn(rows), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(rows)} comparisons")


if __name__ == "__main__":
    main()
