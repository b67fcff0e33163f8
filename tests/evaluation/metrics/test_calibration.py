"""Calibration: by hand, against scikit-learn, and against bins filled one by one."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from foundling.core.errors import UserError
from foundling.evaluation.metrics.calibration import Bin, Config


def draw(seed: int, labels: str = "abc") -> tuple[list[str], list[dict[str, float]]]:
    random = np.random.default_rng(seed)
    answers = [dict(zip(labels, random.dirichlet(np.full(len(labels), 0.6)).tolist(), strict=True)) for _ in range(50)]
    return random.choice(list(labels), 50).tolist(), answers


def test_by_hand() -> None:
    golds = ["a", "b", "a", "b"]
    answers = [{"a": p, "b": 1 - p} for p in (0.9, 0.8, 0.6, 0.3)]
    scored = Config(bins=2, binning="equal_width").build().score(golds, answers)
    assert scored.curve() == [Bin(pytest.approx(0.75), 0.75, 4)], "all confidences are above a half"
    scored = Config(bins=2).build().score(golds, answers)
    assert scored.curve() == [Bin(pytest.approx(0.65), 1.0, 2), Bin(pytest.approx(0.85), 0.5, 2)]
    assert scored.figures() == pytest.approx(
        {
            "ece": (0.35 + 0.35) / 2,
            "brier": 2 * (0.1**2 + 0.8**2 + 0.4**2 + 0.3**2) / 4,
            "nll": -np.log([0.9, 0.2, 0.6, 0.7]).mean(),
        }
    )


@pytest.mark.parametrize("seed", range(5))
def test_brier_and_likelihood_are_those_of_scikit_learn(seed: int) -> None:
    golds, answers = draw(seed)
    figures = Config().build().score(golds, answers).figures()
    table = np.array([[answer[label] for label in "abc"] for answer in answers])
    assert figures["nll"] == pytest.approx(oracle.log_loss(golds, table, labels=list("abc")))
    assert figures["brier"] == pytest.approx(
        oracle.brier_score_loss(golds, table, labels=list("abc"), scale_by_half=False)
    )
    golds, answers = draw(seed, "ab")
    one = oracle.brier_score_loss(np.array(golds) == "b", [answer["b"] for answer in answers], pos_label=True)
    assert Config().build().score(golds, answers).figures()["brier"] == pytest.approx(2 * one)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bins", [1, 4, 10, 80])
def test_bins_of_equal_width_are_filled_one_by_one(seed: int, bins: int) -> None:
    golds, answers = draw(seed)
    filled: dict[int, list[tuple[float, bool]]] = {}
    for gold, answer in zip(golds, answers, strict=True):
        said = max(answer, key=answer.__getitem__)
        place = next(k for k in range(bins) if answer[said] <= (k + 1) / bins + 1e-12)
        filled.setdefault(place, []).append((answer[said], said == gold))
    gaps = {k: abs(sum(p for p, _ in rows) - sum(right for _, right in rows)) for k, rows in filled.items()}
    scored = Config(bins=bins, binning="equal_width").build().score(golds, answers)
    assert scored.figures()["ece"] == pytest.approx(sum(gaps.values()) / len(golds))
    assert [point.num_examples for point in scored.curve()] == [len(filled[k]) for k in sorted(filled)]


def test_bins_of_equal_mass_hold_as_many_and_keep_equals_together() -> None:
    golds, answers = draw(0)
    curve = Config(bins=10).build().score(golds, answers).curve()
    assert [point.num_examples for point in curve] == [5] * 10
    assert [point.confidence for point in curve] == sorted(point.confidence for point in curve)
    same = [{"a": 0.7, "b": 0.3}] * 6 + [{"a": 0.9, "b": 0.1}] * 2
    golds = ["a", "a", "a", "b", "b", "b", "a", "a"]
    curve = Config(bins=4).build().score(golds, same).curve()
    assert [point.num_examples for point in curve] == [6, 2]
    assert [point.accuracy for point in curve] == [0.5, 1.0]


def test_an_edge_belongs_to_the_bin_below() -> None:
    answers = [{"a": 0.7, "b": 0.3}, {"a": 0.71, "b": 0.29}]
    curve = Config(bins=10, binning="equal_width").build().score(["a", "a"], answers).curve()
    assert [point.num_examples for point in curve] == [1, 1]


def test_probabilities_that_are_true_are_calibrated() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1, 20_000)
    golds = np.where(random.random(20_000) < sure, "a", "b").tolist()
    honest = [{"a": p, "b": 1 - p} for p in sure]
    boastful = [{"a": p**0.25, "b": 1 - p**0.25} for p in sure]
    assert Config().build().score(golds, honest).figures()["ece"] < 0.02
    assert Config().build().score(golds, boastful).figures()["ece"] > 0.1


def test_a_label_that_has_no_probability_has_none() -> None:
    figures = Config().build().score(["c"], [{"a": 1.0, "b": 0.0}]).figures()
    assert figures["brier"] == 2
    assert figures["nll"] == pytest.approx(-np.log(np.finfo(float).eps))


@pytest.mark.parametrize("wrong", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}, {"a": "x"}, "a"])
def test_what_is_no_distribution_is_refused(wrong: object) -> None:
    with pytest.raises(UserError, match="probabilit"):
        Config().build().score(["a"], [wrong])
