"""The peak rate to the end."""

from foundling.optim.schedules.base import Schedule, ScheduleConfig


class Config(ScheduleConfig):
    kind: str = "constant"
    """Name of the part."""

    def after_warmup(self, steps: int, total_steps: int, tokens_per_step: float) -> Schedule:
        return lambda step: 1.0
