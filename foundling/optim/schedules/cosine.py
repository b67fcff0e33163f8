"""Half a cosine from the peak to `final` (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts)."""

import math
from typing import Annotated

from pydantic import Field

from foundling.optim.schedules.base import Schedule, ScheduleConfig


class Config(ScheduleConfig):
    kind: str = "cosine"
    """Name of the part."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the peak that would be reached one step after the last."""

    def after_warmup(self, steps: int, total_steps: int, tokens_per_step: float) -> Schedule:
        return lambda step: self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * step / steps))
