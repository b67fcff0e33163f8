"""What counts as a spike."""

import math

import numpy as np
import pytest

from foundling.train.guard import Guard, height
from foundling.train.recipe import Guard as GuardConfig

RECENT = np.exp(np.random.default_rng(0).normal(1.0, 0.1, 4001)).tolist()


def test_a_height_is_in_standard_deviations_of_the_logarithms() -> None:
    for deviations in (-2, 0, 3, 6):
        assert height(math.exp(1.0 + 0.1 * deviations), RECENT) == pytest.approx(deviations, abs=0.2)


def test_a_height_knows_no_unit() -> None:
    value = math.exp(1.5)
    assert height(1000 * value, [1000 * each for each in RECENT]) == pytest.approx(height(value, RECENT))


def test_a_long_tail_is_no_spike_and_a_second_spike_is_one() -> None:
    tail = np.exp(np.random.default_rng(0).standard_t(3, 128)).tolist()
    assert max(height(value, tail) for value in tail) < 6
    steady = np.exp(np.random.default_rng(0).normal(1.0, 0.02, 128)).tolist()
    assert height(7.0, steady) > 30
    assert height(7.0, [*steady[1:], 7.0]) > 6


def test_values_that_are_all_alike_or_zero_have_heights_too() -> None:
    assert height(2.0, [2.0] * 9) == 0
    assert height(2.001, [2.0] * 9) < 1 < height(2.1, [2.0] * 9)
    assert math.isfinite(height(1.0, [0.0] * 9))
    assert math.isfinite(height(0.0, [1.0] * 9))


def test_spikes_are_told_once_half_a_window_was_seen_and_from_the_window_alone() -> None:
    config = GuardConfig(window=8)
    guard = Guard([0])
    for number in range(4):
        assert guard.finding(1e9, 1e9, config) == ""
        guard.note(2.0 + 0.1 * number, 1.0 + 0.1 * number, config)
    assert guard.finding(1e9, 1.0, config) == "spike"
    assert guard.finding(2.0, 1e9, config) == "spike"
    assert guard.finding(2.2, 1.2, config) == ""
    assert guard.finding(0.001, 0.001, config) == "", "only what rises is a spike"
    for _ in range(8):
        guard.note(1e9, 1e9, config)
    assert len(guard.losses) == len(guard.gradient_norms) == 8
    assert guard.finding(1e9, 1e9, config) == ""


@pytest.mark.parametrize("pair", [(math.nan, 1.0), (1.0, math.inf), (math.inf, math.nan)])
def test_what_is_not_finite_is_told_from_the_first_step_on(pair: tuple[float, float]) -> None:
    assert Guard([0]).finding(*pair, GuardConfig(spike="ignore")) == "non_finite"


def test_spikes_can_be_ignored() -> None:
    config = GuardConfig(spike="ignore", window=8)
    guard = Guard([0], losses=[1.0] * 8, gradient_norms=[1.0] * 8)
    assert guard.finding(1e9, 1e9, config) == ""
