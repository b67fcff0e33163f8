"""The peak times sqrt(warm-up / step): it falls without an end (Vaswani et al. 2017, arXiv:1706.03762, 5.3)."""

import math
from typing import Annotated

from pydantic import Field

from foundling.optim.schedules.base import Schedule, ScheduleConfig


class Config(ScheduleConfig):
    kind: str = "inverse_sqrt"
    """Name of the part."""
    timescale: Annotated[int, Field(ge=1)] | None = None
    """Steps after which the rate has fallen to 1 / sqrt(2) of the peak; None: those of the warm-up."""

    def after_warmup(self, steps: int, total_steps: int, tokens_per_step: float) -> Schedule:
        scale = self.timescale or max(1, total_steps - steps)
        return lambda step: math.sqrt(scale / (scale + step))
