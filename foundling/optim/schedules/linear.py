"""A straight line from the peak to `final`."""

from typing import Annotated

from pydantic import Field

from foundling.optim.schedules.base import Schedule, ScheduleConfig


class Config(ScheduleConfig):
    kind: str = "linear"
    """Name of the part."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the peak that would be reached one step after the last."""

    def after_warmup(self, steps: int, total_steps: int, tokens_per_step: float) -> Schedule:
        return lambda step: 1 - (1 - self.final) * step / steps
