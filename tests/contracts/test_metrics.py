"""What every metric must do, whoever wrote it: found by name, tried unasked."""

import math
from typing import Any

import numpy as np
import pytest

from foundling.core.config import resolved
from foundling.core.errors import UserError
from foundling.core.registry import load_part, part_names
from foundling.evaluation.metrics.base import FOLDER, Metric, MetricConfig

KINDS = part_names(FOLDER)
NUMBER = 40
TEXT = "the cat sat on the mat and the old dog ran after it to the end of a long road"

TAKES = {
    "correlation": "numbers",
    "regression": "numbers",
    "entity_f1": "tags",
    "semeval": "relations",
    "squad": "texts",
    "bleu": "texts",
    "chrf": "texts",
    "rouge": "texts",
    "calibration": "probabilities",
    "likelihood": "tokens",
}
"""What kind of values a metric takes; the others': labels."""
PERFECT = {"bleu": 100.0, "chrf": 100.0, "regression": 0.0, "calibration": 0.0, "likelihood": 1.0}
"""The best possible main figure; the others': 1."""

VARIANTS: list[dict[str, Any]] = [
    *({"kind": kind} for kind in KINDS),
    {"kind": "f1", "average": "micro", "labels": ["a", "c"]},
    {"kind": "entity_f1", "mode": "strict"},
    {"kind": "calibration", "binning": "equal_width", "bins": 5},
    {"kind": "rouge", "words": "any"},
    {"kind": "bleu", "tokenize": "char", "lowercase": True},
    {"kind": "chrf", "word_order": 2},
    {"kind": "squad", "language": "zh"},
]


@pytest.fixture(params=VARIANTS, ids=lambda data: "-".join(map(str, data.values())))
def config(request: pytest.FixtureRequest) -> MetricConfig:
    return load_part(FOLDER, request.param["kind"]).Config.model_validate(request.param)


@pytest.fixture
def metric(config: MetricConfig) -> Metric:
    return config.build()


def values(config: MetricConfig) -> tuple[list[Any], list[Any], list[Any]]:
    """Golds, perfect answers, and answers of which some are wrong."""
    random = np.random.default_rng(0)
    kind = TAKES.get(config.kind, "labels")

    def draw() -> Any:
        if kind == "numbers":
            return round(float(random.normal()), 1)
        if kind == "tags":
            return [*random.permutation(["B-PER", "I-PER", "O", "B-LOC"]).tolist(), "O", "B-LOC"]
        if kind == "tokens":
            return int(random.integers(1, 9))
        if kind == "relations":
            return str(random.choice(["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Message-Topic(e1,e2)", "Other"]))
        if kind == "texts":
            return " ".join(random.choice(TEXT.split(), 9))
        return str(random.choice(["a", "b", "c"]))

    golds = [draw() for _ in range(NUMBER)]
    said = [gold if random.random() < 0.6 else draw() for gold in golds]
    if kind == "tokens":
        return golds, [0.0] * NUMBER, random.exponential(size=NUMBER).tolist()
    if kind == "texts":
        return [[gold] for gold in golds], golds, said
    if kind == "probabilities":
        sure = [{label: float(label == gold) for label in "abc"} for gold in golds]
        return golds, sure, [dict(zip("abc", random.dirichlet(np.ones(3)).tolist(), strict=True)) for _ in golds]
    return golds, golds, said


def same(one: float, two: float, rel: float) -> bool:
    return one == pytest.approx(two, rel=rel, abs=1e-12, nan_ok=True)


def test_the_shipped_ones_are_found() -> None:
    assert {"accuracy", "f1", "mcc", *TAKES} <= set(KINDS)


def test_config_is_documented_and_survives_its_own_dump(config: MetricConfig) -> None:
    assert all(field.description for field in type(config).model_fields.values())
    assert type(config).model_validate(resolved(config)) == config


def test_it_says_in_one_line_what_it_computes(config: MetricConfig, metric: Metric) -> None:
    golds, _, said = values(config)
    scored = metric.score(golds, said)
    for line in (metric.settings, scored.settings):
        assert len(line) > 10
        assert "\n" not in line
    assert metric.best in scored.figures()
    assert scored.higher_is_better == metric.higher_is_better
    assert scored.num_examples == NUMBER


def test_figures_are_plain_finite_numbers(config: MetricConfig, metric: Metric) -> None:
    golds, _, said = values(config)
    for name, value in metric.score(golds, said).figures().items():
        assert type(value) is float, name
        assert math.isfinite(value), name


def test_perfect_answers_get_the_best_value_and_none_get_a_better_one(config: MetricConfig, metric: Metric) -> None:
    golds, perfect, said = values(config)
    top, other = metric.score(golds, perfect).figures(), metric.score(golds, said).figures()
    assert top[metric.best] == pytest.approx(PERFECT.get(config.kind, 1.0), abs=1e-9)
    sign = 1 if metric.higher_is_better else -1
    assert sign * top[metric.best] > sign * other[metric.best]
    for name in top.keys() & other.keys():
        assert sign * other[name] <= sign * top[name] + 1e-9, name


def test_it_is_deterministic_and_keeps_nothing(config: MetricConfig, metric: Metric) -> None:
    golds, perfect, said = values(config)
    first = metric.score(golds, said)
    before = first.figures()
    metric.score(golds[:7], perfect[:7])
    assert metric.score(golds, said).figures() == before
    assert first.figures() == before
    assert config.build().score(golds, said).settings == first.settings


def test_all_examples_by_number_are_the_whole_in_any_order(config: MetricConfig, metric: Metric) -> None:
    golds, _, said = values(config)
    scored = metric.score(golds, said)
    assert scored.figures(np.arange(NUMBER)) == scored.figures()
    shuffled = scored.figures(np.random.default_rng(1).permutation(NUMBER))
    assert list(shuffled) == list(scored.figures())
    for name, value in scored.figures().items():
        assert same(shuffled[name], value, rel=1e-12), name


@pytest.mark.parametrize("size", [1, 2, 7, NUMBER, 3 * NUMBER])
def test_a_draw_is_measured_as_if_it_were_all_there_is(config: MetricConfig, metric: Metric, size: int) -> None:
    golds, _, said = values(config)
    scored = metric.score(golds, said)
    for seed in range(3):
        index = np.random.default_rng(seed).integers(NUMBER, size=size)
        drawn = scored.figures(index)
        alone = metric.score([golds[i] for i in index], [said[i] for i in index]).figures()
        assert drawn.keys() == scored.figures().keys()
        assert alone.keys() <= drawn.keys()
        for name, value in drawn.items():
            assert same(value, alone.get(name, math.nan), rel=1e-12), name


def test_examples_are_known_by_their_golds(config: MetricConfig, metric: Metric) -> None:
    golds, perfect, said = values(config)
    one = metric.score(golds, said).examples
    assert one == metric.score(golds, perfect).examples
    assert one != metric.score(golds[::-1], said[::-1]).examples
    assert one != metric.score(golds[1:], said[1:]).examples


def test_what_cannot_be_measured_is_refused(config: MetricConfig, metric: Metric) -> None:
    golds, _, said = values(config)
    with pytest.raises(UserError, match="there must be examples to score"):
        metric.score([], [])
    with pytest.raises(UserError, match="one answer for each example; got 3 for 4"):
        metric.score(golds[:4], said[:3])
    for foreign in (None, object(), [None]):
        with pytest.raises(UserError):
            metric.score([golds[0]], [foreign])
        with pytest.raises(UserError):
            metric.score([foreign], [said[0]])
