"""Metrics of labels against scikit-learn: accuracy, F1, Matthews."""

import random
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from foundling.core.errors import UserError
from foundling.evaluation.metrics.accuracy import Config as Accuracy
from foundling.evaluation.metrics.f1 import Config as F1
from foundling.evaluation.metrics.mcc import Config as Matthews


def draw(seed: int) -> tuple[list[str], list[str]]:
    chance = random.Random(seed)
    labels = [f"label {k}" for k in range(chance.randint(2, 6))]
    golds = [chance.choice(labels) for _ in range(chance.randint(1, 50))]
    return golds, [gold if chance.random() < 0.5 else chance.choice([*labels, "new"]) for gold in golds]


def draw_sets(seed: int) -> tuple[list[list[str]], list[list[str]]]:
    chance = random.Random(seed)
    pick = lambda: [label for label in "abcd" if chance.random() < 0.3]
    golds = [pick() for _ in range(30)]
    return golds, [gold if chance.random() < 0.4 else pick() for gold in golds]


def binary(sets: list[list[str]]) -> np.ndarray:
    return np.array([[label in labels for label in "abcd"] for labels in sets], dtype=int)


def averages(golds: Any, said: Any, labels: Any = None) -> dict[str, float]:
    found = {}
    for average in ("macro", "micro", "weighted"):
        three = oracle.precision_recall_fscore_support(golds, said, average=average, labels=labels, zero_division=0)
        found |= {f"{kind}_{average}": value for kind, value in zip(("precision", "recall", "f1"), three, strict=False)}
    return found


@pytest.mark.parametrize("seed", range(20))
def test_one_label_an_example(seed: int) -> None:
    golds, said = draw(seed)
    assert Accuracy().build().score(golds, said).figures()["accuracy"] == pytest.approx(
        oracle.accuracy_score(golds, said)
    )
    assert Matthews().build().score(golds, said).figures()["mcc"] == pytest.approx(
        oracle.matthews_corrcoef(golds, said)
    )
    figures = F1().build().score(golds, said).figures()
    names = sorted({*golds, *said})
    each = oracle.precision_recall_fscore_support(golds, said, labels=names, zero_division=0)
    wanted = averages(golds, said)
    for kind, values in zip(("precision", "recall", "f1"), each, strict=False):
        wanted |= {f"{kind}/{name}": value for name, value in zip(names, values, strict=True)}
    assert figures == pytest.approx(wanted, abs=1e-12)
    assert figures["f1_micro"] == pytest.approx(oracle.accuracy_score(golds, said))


@pytest.mark.parametrize("seed", range(10))
def test_several_labels_an_example(seed: int) -> None:
    golds, said = draw_sets(seed)
    figures = F1().build().score(golds, said).figures()
    wanted = averages(binary(golds), binary(said))
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)
    assert Accuracy().build().score(golds, said).figures()["accuracy"] == pytest.approx(
        oracle.accuracy_score(binary(golds), binary(said))
    )


def test_only_some_labels_count() -> None:
    golds, said = ["a", "b", "none", "none", "b"], ["a", "none", "none", "b", "b"]
    figures = F1(labels=("a", "b")).build().score(golds, said).figures()
    wanted = averages(golds, said, ["a", "b"])
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted)
    assert figures["f1_micro"] == pytest.approx(2 / 3), "2 right, 3 said, 3 true"
    assert "f1/none" not in figures
    one = F1(labels=("b",)).build().score(golds, said).figures()
    assert one["f1_macro"] == one["f1/b"] == pytest.approx(oracle.f1_score(golds, said, labels=["b"], average="macro"))


def test_a_label_that_is_nowhere_is_left_out_of_the_averages() -> None:
    figures = F1(labels=("a", "b", "never")).build().score(["a", "b"], ["a", "b"]).figures()
    assert figures["f1_macro"] == 1
    assert "f1/never" not in figures


def test_the_main_figure_can_be_chosen() -> None:
    assert [F1(average=name).build().best for name in ("macro", "micro", "weighted")] == [
        "f1_macro",
        "f1_micro",
        "f1_weighted",
    ]


def test_the_order_of_labels_says_nothing() -> None:
    assert Accuracy().build().score([["a", "b"], []], [["b", "a"], ["a"]]).figures() == {"accuracy": 0.5}


def test_matthews_of_one_label_only_is_0() -> None:
    assert Matthews().build().score(["a", "a"], ["a", "a"]).figures() == {"mcc": 0.0}


def test_what_is_no_label_is_refused() -> None:
    with pytest.raises(UserError, match="labels must be a text or a list of texts; got 1"):
        Accuracy().build().score(["a"], [1])
    with pytest.raises(UserError, match="a label must be a text; got"):
        Matthews().build().score(["a"], [["a"]])
