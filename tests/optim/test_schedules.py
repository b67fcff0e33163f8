"""Shapes of the schedules."""

import math
from itertools import pairwise
from typing import Any

import pytest

from foundling.core.registry import load_part
from foundling.optim.schedules.base import Schedule


def schedule(kind: str, total_steps: int = 100, tokens_per_step: float = 1000, **keys: Any) -> Schedule:
    return (
        load_part("optim.schedules", kind)
        .Config.model_validate({"kind": kind, **keys})
        .build(total_steps, tokens_per_step)
    )


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear", "wsd"])
@pytest.mark.parametrize("warmup", ["10 steps", "10K tokens", 0.1])
def test_warm_up_rises_in_a_line_to_the_peak(kind: str, warmup: Any) -> None:
    factor = schedule(kind, warmup=warmup)
    assert [factor(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factor(10) == 1.0


def test_wsd_holds_then_falls() -> None:
    factor = schedule("wsd", warmup="10 steps", decay="20 steps", final=0.1)
    assert {factor(step) for step in range(10, 81)} == {1.0}
    assert factor(90) == pytest.approx(0.55)
    assert factor(99) == pytest.approx(1 - 0.9 * 19 / 20)
    falls = [a - b for a, b in pairwise(factor(step) for step in range(80, 100))]
    assert falls == pytest.approx([0.9 / 20] * 19)
    assert [schedule("wsd", decay="20K tokens")(s) for s in range(100)] == [
        schedule("wsd", decay=0.2)(s) for s in range(100)
    ]


def test_a_runs_stable_part_serves_runs_of_other_lengths() -> None:
    short, long = (schedule("wsd", n, warmup="10 steps", decay=0.2) for n in (100, 200))
    assert [short(s) for s in range(80)] == [long(s) for s in range(80)]


def test_cosine_and_linear_reach_their_ends() -> None:
    factor = schedule("cosine", warmup=0.0, final=0.2)
    assert [factor(s) for s in (0, 50)] == pytest.approx([1.0, 0.6])
    assert factor(99) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 0.99)))
    line = schedule("linear", warmup=0.0, final=0.5)
    assert [line(s) for s in (0, 50, 99)] == pytest.approx([1.0, 0.75, 0.505])
    for falling in (factor, line):
        assert all(a > b for a, b in pairwise(falling(s) for s in range(100)))


def test_constant_is_constant() -> None:
    factor = schedule("constant", warmup=0.0)
    assert {factor(s) for s in range(100)} == {1.0}


@pytest.mark.parametrize("warmup", [1, 10])
def test_inverse_square_root_and_polynomial_are_those_of_transformers(warmup: int) -> None:
    import torch
    import transformers

    from foundling.core.registry import load_part

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = {
        "inverse_sqrt": transformers.get_inverse_sqrt_schedule(optimizer, warmup),
        "polynomial": transformers.get_polynomial_decay_schedule_with_warmup(
            optimizer, warmup, 100, lr_end=0.1, power=2.0
        ),
    }
    for kind, settings in (("inverse_sqrt", {}), ("polynomial", {"final": 0.1, "power": 2.0})):
        config = load_part("optim.schedules", kind).Config.model_validate(
            {"kind": kind, "warmup": f"{warmup} steps", **settings}
        )
        factor = config.build(100, 1.0)
        after = [theirs[kind].lr_lambdas[0](step) for step in range(warmup, 100)]
        assert [factor(step) for step in range(warmup, 100)] == pytest.approx(after)


def test_a_schedule_longer_than_the_run_is_told(caplog: pytest.LogCaptureFixture) -> None:
    schedule("wsd", warmup="20 steps", decay="80 steps")
    assert not caplog.text
    schedule("cosine", warmup="100 steps")
    assert "the warm-up of 100 steps is not shorter than the run (100)" in caplog.text
    caplog.clear()
    schedule("wsd", warmup=0.2, decay=0.82)
    assert "the decay of 82 steps is longer than what the warm-up leaves of the run (80)" in caplog.text
