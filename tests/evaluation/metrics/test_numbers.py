"""Metrics of numbers against scipy and scikit-learn: correlation and errors."""

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as oracle

from foundling.core.errors import UserError
from foundling.evaluation.metrics.correlation import Config as Correlation
from foundling.evaluation.metrics.regression import Config as Regression


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ties", [False, True])
def test_random_numbers(seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    golds = random.normal(size=random.integers(3, 40))
    said = golds * random.normal() + random.normal(size=len(golds))
    if ties:
        golds, said = golds.round(), said.round()
    assert np.ptp(golds) > 0
    assert np.ptp(said) > 0
    figures = Correlation().build().score(golds.tolist(), said.tolist()).figures()
    assert figures == pytest.approx(
        {
            "spearman": scipy.stats.spearmanr(golds, said).statistic,
            "pearson": scipy.stats.pearsonr(golds, said).statistic,
        },
        abs=1e-12,
    )
    assert Regression().build().score(golds.tolist(), said.tolist()).figures() == pytest.approx(
        {"mse": oracle.mean_squared_error(golds, said), "mae": oracle.mean_absolute_error(golds, said)}
    )


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_correlation_has_no_unit(scale: float) -> None:
    golds, said = [1.0, 2.0, 4.0, 3.0], [3 * scale, 1 * scale, 9 * scale, 4 * scale]
    wanted = Correlation().build().score(golds, [3.0, 1.0, 9.0, 4.0]).figures()
    assert Correlation().build().score(golds, said).figures() == pytest.approx(wanted)


def test_a_constant_side_has_no_order() -> None:
    assert Correlation().build().score([1, 2, 3], [5, 5, 5]).figures() == {"spearman": 0.0, "pearson": 0.0}


def test_the_main_figure_can_be_chosen() -> None:
    assert Correlation().build().best == "spearman"
    assert Correlation(main="pearson").build().best == "pearson"


@pytest.mark.parametrize("wrong", ["x", None, float("nan"), float("inf")])
def test_what_is_no_finite_number_is_refused(wrong: object) -> None:
    for config in (Correlation(), Regression()):
        with pytest.raises(UserError, match=r"must be (finite )?numbers"):
            config.build().score([1.0, 2.0], [1.0, wrong])
