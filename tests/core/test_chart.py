"""A chart shows its points where they are, and keeps what matters when there are many."""

import re

import pytest

from foundling.core.chart import MAX_POINTS, Axis, Line, draw, extremes, smoothed


def path_of(html: str, style: str) -> list[tuple[float, float]]:
    text = re.search(f'<path class="{style}" d="M([^"]*)"', html)
    assert text
    return [(float(x), float(y)) for x, y in (p.split() for p in text[1].split("L"))]


def test_points_stand_in_proportion() -> None:
    drawn = path_of(draw([Line([(0, 0), (5, 1), (10, 4)])], label="x", y_from_zero=True), "main")
    assert [x for x, _ in drawn] == [0, 500, 1000]
    heights = [1000 - y for _, y in drawn]
    assert heights[0] == 0
    assert heights[2] == pytest.approx(4 * heights[1], abs=1)


def test_equal_factors_are_equal_lengths_on_a_log_axis() -> None:
    drawn = path_of(draw([Line([(0, 1), (1, 10), (2, 100)])], label="x", log=True), "main")
    (_, a), (_, b), (_, c) = drawn
    assert a - b == pytest.approx(b - c, abs=0.2)


def test_the_other_axis_may_be_logarithmic_too() -> None:
    drawn = path_of(draw([Line([(0, 1), (1e-6, 1), (1e-4, 2), (1e-2, 3)])], label="x", x_log=True), "main")
    assert [x for x, _ in drawn] == pytest.approx([0, 500, 1000], abs=0.1), "what is not positive is left out"


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[3.0, 3.0], [1e-9, 2e-9], [0.9999, 1.0001], [1.0, 1e6], [2.1, 9.3], [7.0]])
def test_an_axis_holds_its_values_and_has_ticks(values: list[float], log: bool) -> None:
    axis = Axis.over(values, log=log)
    assert all(0 <= axis.share(v) <= 1 for v in values)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(-1e-9 <= axis.share(t) <= 1 + 1e-9 for t in ticks)
    assert ticks == sorted(set(ticks))


def test_values_that_cannot_be_drawn_are_left_out() -> None:
    line = Line([(0, 5.0), (1, float("nan")), (2, float("inf")), (3, 0.0), (4, 1.0)])
    assert len(path_of(draw([line], label="x", log=True), "main")) == 2
    assert len(path_of(draw([line], label="x"), "main")) == 3


def test_one_point_is_a_dot_and_text_is_escaped() -> None:
    html = draw([Line([(1, 2)])], label='<"a">', x_unit="<b>")
    assert "M" in html
    assert "dot" in html
    assert "<b>" not in html
    assert 'aria-label="&lt;&quot;a&quot;&gt;"' in html


def test_thinning_keeps_every_peak_and_the_order() -> None:
    points = [(float(i), 1.0) for i in range(50_000)]
    points[31_337] = (31_337.0, 99.0)
    points[404] = (404.0, -99.0)
    thin = extremes(points)
    assert len(thin) <= MAX_POINTS
    assert (31_337.0, 99.0) in thin
    assert (404.0, -99.0) in thin
    assert thin == sorted(thin)
    assert extremes(points[:10]) == points[:10]


def test_smoothing_leaves_a_straight_line_straight_to_its_ends() -> None:
    points = [(float(i), 3.0 * i) for i in range(200)]
    assert [y for _, y in smoothed(points)] == pytest.approx([y for _, y in points])


def test_smoothing_takes_noise_away() -> None:
    noisy = [(float(i), 10.0 + (-1) ** i) for i in range(300)]
    inner = [y for _, y in smoothed(noisy)][20:-20]
    assert max(abs(y - 10) for y in inner) < 0.1
