"""Mixtures: shares by weight, size and temperature; limits on epochs; changes on the way."""

from itertools import pairwise

import pytest

from foundling.core.errors import UserError
from foundling.data.mixture import Mixture, Phase
from foundling.data.order import Order


def test_shares_follow_size_temperature_or_weights() -> None:
    assert Mixture().phases([100, 300], None) == [Phase(0, (0.25, 0.75))]
    assert Mixture(temperature=2.0).phases([100, 400], None)[0].shares == pytest.approx((1 / 3, 2 / 3))
    assert Mixture(temperature=1e9).phases([1, 10**6], None)[0].shares == pytest.approx((0.5, 0.5), abs=1e-6)
    assert Mixture(weights=(3, 1)).phases([5, 5], None) == [Phase(0, (0.75, 0.25))]


def test_weights_change_at_their_share_of_the_run() -> None:
    found = Mixture(weights=(1, 1), changes=((0.6, (1, 3)), (0.9, (0, 1)))).phases([50, 50], 1000)
    assert found == [Phase(0, (0.5, 0.5)), Phase(600, (0.25, 0.75)), Phase(900, (0.0, 1.0))]


def test_no_source_is_read_more_often_than_its_limit_and_the_rest_takes_over() -> None:
    rows = [100, 1000, 50]
    mixture = Mixture(weights=(1, 1, 2), max_epochs=(2.0, None, 1.5))
    phases = mixture.phases(rows, 3000)
    counts = Order(rows, phases, 0).drawn(3000)
    assert sum(counts) == 3000
    assert 198 <= counts[0] <= 201
    assert 73 <= counts[2] <= 76
    assert phases[-1].shares == (0.0, 1.0, 0.0)
    assert all(one.first < two.first for one, two in pairwise(phases))


def test_a_limit_counts_over_changes_and_a_tiny_source_is_still_used() -> None:
    rows = [10, 5000]
    phases = Mixture(weights=(1, 1), max_epochs=(1.0, None), changes=((0.5, (9, 1)),)).phases(rows, 1000)
    assert 9 <= Order(rows, phases, 0).drawn(1000)[0] <= 11


def test_a_mixture_that_ends_before_the_run_is_an_error() -> None:
    mixture = Mixture(max_epochs=(1.0, 2.0), names=("books", "news"))
    with pytest.raises(UserError, match=r"max_epochs of books, news used up after 30 % of it"):
        mixture.phases([100, 100], 1000)
