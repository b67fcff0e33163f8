"""What every schedule must do, whoever wrote it: found by name, tried unasked."""

import pytest

from foundling.core.config import resolved
from foundling.core.registry import load_part, part_names
from foundling.optim.schedules.base import ScheduleConfig

KINDS = part_names("optim.schedules")


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest) -> ScheduleConfig:
    return load_part("optim.schedules", request.param).Config.model_validate({"kind": request.param})


def test_the_shipped_ones_are_found() -> None:
    assert {"constant", "cosine", "linear", "wsd"} <= set(KINDS)


def test_config_is_documented_and_survives_its_own_dump(config: ScheduleConfig) -> None:
    assert all(field.description for field in type(config).model_fields.values())
    assert type(config).model_validate(resolved(config)) == config


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0, "1 step", "5000 steps", "1G tokens"])
def test_factors_lie_in_0_to_1_for_any_length_and_warm_up(
    config: ScheduleConfig, total_steps: int, warmup: float | str
) -> None:
    changed = type(config).model_validate({**resolved(config), "warmup": warmup})
    factor = changed.build(total_steps, 1024)
    values = [factor(step) for step in range(total_steps)]
    assert all(0 <= value <= 1 for value in values), values
    assert values[0] > 0, "the first step learns"
    assert 0 <= factor(total_steps + 5) <= 1, "a step past the end is no fault"


def test_a_schedule_is_a_pure_function_of_the_step(config: ScheduleConfig) -> None:
    factor, again = config.build(50, 1024), config.build(50, 1024)
    assert [factor(step) for step in range(50)] == [again(step) for step in reversed(range(50))][::-1]
