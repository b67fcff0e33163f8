"""Batches that grow during a run: one order of the data, as many tokens as asked for, exact on resume."""

from collections.abc import Callable
from typing import Any

import pytest

from foundling.core.errors import UserError
from foundling.train import loop
from foundling.train.pretrain import plan, pretrain
from foundling.train.recipe import Recipe
from foundling.train.settings import Settings
from foundling.train.state import Training
from tests.train.test_pretrain import assert_same_bits, stop_after

Make = Callable[..., Recipe]

RAMP = {
    "train.phases": [{"share": 0.5, "batch": "64 tokens"}, {"share": 0.25, "batch": "6 rows"}, {"share": 0.25}],
    "train.batch": "8 rows",
}  # fmt: skip
ROWS = [2, 2, 2, 2, 6, 6, 8, 8]


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_rows_follow_one_order_and_resume_is_exact(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    seen: list[list[int]] = []
    micro_batches = loop.micro_batches

    def note(training: Training) -> list[Any]:
        batches = micro_batches(training)
        seen.append([sample for batch in batches for sample in batch.samples_R])
        return batches

    monkeypatch.setattr(loop, "micro_batches", note)
    whole = pretrain(tiny_recipe("whole", **RAMP))
    assert [len(samples) for samples in seen] == ROWS
    assert sorted(sample for samples in seen for sample in samples) == list(range(sum(ROWS))), (
        "each sample once, in the order of a run without phases"
    )
    assert whole.summary["tokens"] == 32 * sum(ROWS)
    with monkeypatch.context() as patch:
        stop_after(stop, patch)
        pretrain(tiny_recipe("cut", **RAMP))
    assert_same_bits(whole.folder, pretrain(tiny_recipe("cut", **RAMP), resume=True).folder)


def test_phases_of_one_batch_are_the_run_without(tiny_recipe: Make) -> None:
    phases = [{"share": 0.5, "batch": "8 rows"}, {"share": 0.5, "sequence_length": 32}]
    assert_same_bits(
        pretrain(tiny_recipe("plain")).folder, pretrain(tiny_recipe("cut", **{"train.phases": phases})).folder
    )


def test_a_length_in_tokens_is_what_is_trained_on(tiny_recipe: Make) -> None:
    found = plan(tiny_recipe("run", **RAMP, **{"train.length": "20K tokens"}))
    assert abs(found.tokens_at(found.total_steps) - 20_000) <= 8 * 32, "to a step of the largest batch"
    assert found.tokens_per_step == pytest.approx(32 * (2 / 2 + 6 / 4 + 8 / 4), rel=0.01)


def test_samples_go_on_within_a_row_length() -> None:
    stretches = [(0, 16, 8, 8), (3, 32, 4, 4), (5, 16, 2, 2)]
    keys = ("first_step", "row_length", "batch_rows", "micro_batch_rows")
    found = Settings(32, 4, 4, 7, 1e-3, "fp32", False, [dict(zip(keys, s, strict=True)) for s in stretches])
    assert [found.first_sample(step, [0, 0, 0]) for step in range(7)] == [0, 8, 16, 0, 4, 24, 26]
    assert [found.first_sample(step, [2, 1, 5]) for step in range(7)] == [26, 34, 42, 4, 8, 50, 52], "passed over"
    assert [found.tokens_at(step) for step in (0, 1, 3, 4, 7)] == [0, 128, 384, 512, 704]
    assert found.tokens_per_step == 704 / 7


def test_a_length_of_nothing_is_told(tiny_recipe: Make) -> None:
    with pytest.raises(UserError, match="at least one step"):
        plan(tiny_recipe("run", **{"train.length": "0 steps", "train.batch": None}))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"train.phases": [{"share": 1.0, "batch": "8 rows"}]}, "give either batch or phases that each have their own"),
        ({"train.phases": [{"share": 0.5}, {"share": 0.5}]}, "a sequence_length or a batch of its own; got shares"),
        ({"train.phases": [{"share": 0.5, "batch": "8 steps"}, {"share": 0.5}]}, "batch: expected '20M tokens' or"),
        ({"train.phases": [{"share": 0.5, "batch": "3 tokens"}, {"share": 0.5}]}, "must hold a row of 32 tokens"),
        ({"train.phases": [{"share": 0.5, "batch": "9M tokens"}, {"share": 0.5}]}, "must fill one batch of 9,000,000"),
    ],
)
def test_a_ramp_that_cannot_be_is_told(tiny_recipe: Make, keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        plan(tiny_recipe("run", **{**RAMP, **keys}))
