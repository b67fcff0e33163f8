"""A power of what is left of the run, from the peak to `final`; power 1 is a straight line, 2 bends towards the end."""

from typing import Annotated

from pydantic import Field

from foundling.optim.schedules.base import Schedule, ScheduleConfig


class Config(ScheduleConfig):
    kind: str = "polynomial"
    """Name of the part."""
    power: Annotated[float, Field(gt=0)] = 2.0
    """Power of the share of the run that is left."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the peak that would be reached one step after the last."""

    def after_warmup(self, steps: int, total_steps: int, tokens_per_step: float) -> Schedule:
        return lambda step: self.final + (1 - self.final) * max(0.0, 1 - step / steps) ** self.power
