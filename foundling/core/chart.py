"""Line charts as HTML with inline SVG, for reports: no plotting library, the same bytes for the same points.

The SVG is stretched to its box while strokes keep their width, and the labels are HTML: a chart is as readable on a
phone as on a wide screen, and follows the page's colours, light or dark (`report.css`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from foundling.core.units import human

MAX_POINTS = 600
"""More points than this are drawn as the lowest and the highest of each bucket (or their mean)."""
_SIZE = 1000
"""Width and height of the drawing in its own units."""
_MIN_TICKS = 3

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Points in order of x. name: for the legend; empty: none."""

    points: Sequence[Point]
    name: str = ""
    style: Literal["main", "faint", "warm"] = "main"
    dots: bool = False
    """Whether each point is marked, with its figures on hover."""


def draw(
    lines: Sequence[Line],
    *,
    label: str,
    log: bool = False,
    x_log: bool = False,
    x_from_zero: bool = False,
    y_from_zero: bool = False,
    x_unit: str = "",
    y_format: Callable[[float], str] = human,
) -> str:
    """The chart's HTML: a `div.plot` that fills the width it is given.

    label: what it shows, for those who hear the page. log, x_log: a logarithmic y or x axis, for positive values.
    x_from_zero, y_from_zero: the axis begins at 0. Points that are not finite (and on a log axis not positive) are left
    out; at least one must stay.
    """

    def can_stand(point: Point) -> bool:
        x, y = point
        return math.isfinite(x) and math.isfinite(y) and (x > 0 or not x_log) and (y > 0 or not log)

    drawn = [(line, [point for point in line.points if can_stand(point)]) for line in lines]
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    assert ys, "a chart needs a point"
    x_axis = Axis.over([*xs, 0.0] if x_from_zero else xs, log=x_log, pad=0.0)
    y_axis = Axis.over([*ys, 0.0] if y_from_zero else ys, log=log)

    def at(point: Point) -> str:
        return f"{_SIZE * x_axis.share(point[0]):.1f} {_SIZE * (1 - y_axis.share(point[1])):.1f}"

    parts = [f'<path class="grid" d="{_grid(y_axis)}"/>']
    for line, points in drawn:
        if len(points) > 1:
            parts.append(f'<path class="{line.style}" d="M{"L".join(at(p) for p in points)}"/>')
        for point in points if line.dots or len(points) == 1 else ():
            title = escape(f"{human(point[0])}{x_unit and ' ' + x_unit}: {y_format(point[1])}")
            parts.append(f'<path class="{line.style} dot" d="M{at(point)}h0"><title>{title}</title></path>')
    spans = [
        f'<span class="y" style="top:{100 * (1 - y_axis.share(v)):.2f}%">{y_format(v)}</span>' for v in y_axis.ticks()
    ]
    for value in x_axis.ticks():
        share = x_axis.share(value)
        edge = " edge" if share > 0.95 else ""
        spans.append(f'<span class="x{edge}" style="left:{100 * share:.2f}%">{escape(human(value))}</span>')
    return (
        f'<div class="plot"><svg viewBox="0 0 {_SIZE} {_SIZE}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>{"".join(spans)}</div>'
    )


def _grid(axis: "Axis") -> str:
    return "".join(f"M0 {_SIZE * (1 - axis.share(value)):.1f}H{_SIZE}" for value in axis.ticks())


@dataclass(frozen=True)
class Axis:
    """A range of values, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], *, log: bool = False, pad: float = 0.05) -> "Axis":
        """The axis that holds all values with a little air; equal values stand in its middle."""
        low, high = min(values), max(values)
        if log:
            low, high = math.log(low), math.log(high)
        air = pad * (high - low) if high > low else 0.5 * abs(high) or 1.0
        bottom = low if low == 0 and not log else low - air
        return cls(math.exp(bottom), math.exp(high + air), True) if log else cls(bottom, high + air)

    def share(self, value: float) -> float:
        """Where a value stands, 0 at the low end and 1 at the high end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values within the range: 1, 2 and 5 times powers of ten on a log axis that spans enough of them."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
                found = [s * 10.0**p for p in powers for s in steps if self.low <= s * 10.0**p <= self.high]
                if len(found) > _MIN_TICKS:
                    return found
        wanted = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(wanted))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= wanted)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def extremes(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most `limit` points that keep every peak: the lowest and the highest of each bucket, in order."""
    if len(points) <= limit:
        return list(points)
    found: list[Point] = []
    for bucket in _buckets(points, limit // 2):
        pair = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
        found += sorted(pair)
    return found


def smoothed(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """The line that the eye would draw: means over a centred window of about a fifteenth of the points.

    The window shrinks towards both ends and stays centred, so the line neither lags nor bends there.
    """
    means = [
        (math.fsum(x for x, _ in b) / len(b), math.fsum(y for _, y in b) / len(b)) for b in _buckets(points, limit)
    ]
    reach = max(1, len(means) // 30)
    found = []
    for i, (x, _) in enumerate(means):
        near = min(reach, i, len(means) - 1 - i)
        window = means[i - near : i + near + 1]
        found.append((x, math.fsum(y for _, y in window) / len(window)))
    return found


def _buckets(points: Sequence[Point], limit: int) -> list[Sequence[Point]]:
    size = -(-len(points) // limit)
    return [points[i : i + size] for i in range(0, len(points), size)]
