"""The bootstrap: against its formula, under no difference, under a large one."""

import math

import numpy as np
import pytest

from foundling.core.errors import UserError
from foundling.evaluation.metrics.accuracy import Config as Accuracy
from foundling.evaluation.metrics.base import Sums
from foundling.evaluation.metrics.f1 import Config as F1
from foundling.evaluation.metrics.regression import Config as Regression
from foundling.evaluation.significance import compare, intervals, over_seeds

GOLDS = ["a", "b"] * 100


def answers(share: float, seed: int, golds: list[str] = GOLDS) -> list[str]:
    right = np.random.default_rng(seed).random(len(golds)) < share
    return [gold if ok else "wrong" for gold, ok in zip(golds, right, strict=True)]


def accuracy(share: float, seed: int) -> Sums:
    return Accuracy().build().score(GOLDS, answers(share, seed))


def test_the_interval_of_a_share_is_about_that_of_the_formula() -> None:
    scored = accuracy(0.8, 1)
    share = scored.figures()["accuracy"]
    low, high = intervals(scored, draws=4000)["accuracy"]
    half = 1.96 * math.sqrt(share * (1 - share) / 200)
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.01)


def test_an_interval_holds_the_truth_in_about_95_of_100_samples() -> None:
    hits = 0
    for seed in range(200):
        low, high = intervals(accuracy(0.7, seed), draws=200, seed=seed)["accuracy"]
        hits += low <= 0.7 <= high
    assert 180 <= hits <= 198, hits


def test_a_seed_gives_one_interval() -> None:
    scored = accuracy(0.8, 1)
    assert intervals(scored, seed=3) == intervals(scored, seed=3) != intervals(scored, seed=4)
    assert compare(scored, accuracy(0.7, 2), seed=3) == compare(scored, accuracy(0.7, 2), seed=3)


def test_a_rare_label_is_measured_on_the_draws_that_have_it() -> None:
    golds = [*GOLDS, "rare"]
    found = intervals(F1().build().score(golds, golds), draws=100)
    assert found["f1/rare"] == (1.0, 1.0)
    assert found["f1_macro"] == (1.0, 1.0)


def test_no_difference_is_noise() -> None:
    scored = accuracy(0.8, 1)
    (found,) = compare(scored, scored).values()
    assert (found.difference, found.low, found.high, found.p, found.verdict) == (0, 0, 0, 1, "noise")


def test_models_of_equal_worth_are_told_apart_in_about_5_of_100_samples() -> None:
    told = sum(
        compare(accuracy(0.7, 2 * i), accuracy(0.7, 2 * i + 1), draws=200)["accuracy"].verdict != "noise"
        for i in range(200)
    )
    assert 2 <= told <= 20, told


def test_a_large_difference_is_seen_from_both_sides() -> None:
    weak, strong = accuracy(0.6, 1), accuracy(0.9, 2)
    up, down = compare(weak, strong)["accuracy"], compare(strong, weak)["accuracy"]
    assert (up.verdict, down.verdict) == ("better", "worse")
    assert up.difference == -down.difference == pytest.approx(up.b - up.a)
    assert 0 < up.low < up.difference < up.high
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low))
    assert up.p == down.p == pytest.approx(2 / 1001), "no draw on the other side"


def test_draws_are_paired() -> None:
    """Answers that differ in five examples, always to b's good: paired this is sure, unpaired it would be noise."""
    said = answers(0.7, 1)
    wrong = [i for i, answer in enumerate(said) if answer == "wrong"][:8]
    better = [GOLDS[i] if i in wrong else answer for i, answer in enumerate(said)]
    metric = Accuracy().build()
    found = compare(metric.score(GOLDS, said), metric.score(GOLDS, better))["accuracy"]
    assert found.verdict == "better"
    assert found.low > 0
    one, two = (intervals(metric.score(GOLDS, each))["accuracy"] for each in (said, better))
    assert one[1] > two[0], "the intervals of the two overlap"


def test_the_verdict_and_the_interval_agree() -> None:
    for seed in range(30):
        found = compare(accuracy(0.70, seed), accuracy(0.78, 100 + seed), draws=500)["accuracy"]
        if min(abs(found.low), abs(found.high)) > 0.005:
            assert (found.verdict != "noise") == (found.low > 0 or found.high < 0), found


def test_errors_are_better_when_smaller() -> None:
    random = np.random.default_rng(0)
    golds = random.normal(size=100)
    near, far = (golds + random.normal(size=100) * scale for scale in (0.1, 1.0))
    metric = Regression().build()
    found = compare(metric.score(golds.tolist(), far.tolist()), metric.score(golds.tolist(), near.tolist()))
    assert {one.verdict for one in found.values()} == {"better"}
    assert all(one.difference < 0 for one in found.values())


def test_what_cannot_be_compared_is_refused() -> None:
    metric, other = Accuracy().build(), [*GOLDS[:-1], "c"]
    with pytest.raises(UserError, match="must be to the same examples"):
        compare(metric.score(GOLDS, GOLDS), metric.score(other, other))
    with pytest.raises(UserError, match="must be to the same examples"):
        compare(metric.score(GOLDS, GOLDS), metric.score(GOLDS[:50], GOLDS[:50]))
    with pytest.raises(UserError, match="by the same metric and settings"):
        compare(metric.score(GOLDS, GOLDS), F1().build().score(GOLDS, GOLDS))
    with pytest.raises(UserError, match="needs 100 draws or more; got 99"):
        intervals(metric.score(GOLDS, GOLDS), draws=99)


def test_figures_over_seeds() -> None:
    found = over_seeds([{"f1": 0.5, "loss": 1.0}, {"f1": 0.7, "loss": 1.0}, {"f1": 0.6, "loss": 1.0}])
    assert (found["f1"].mean, found["f1"].std, found["f1"].num_seeds) == pytest.approx((0.6, 0.1, 3))
    assert found["loss"].std == 0
    with pytest.raises(UserError, match="two seeds or more; got 1"):
        over_seeds([{"f1": 0.5}])
    with pytest.raises(UserError, match="the same figures; got em"):
        over_seeds([{"f1": 0.5}, {"f1": 0.5, "em": 0.4}])
