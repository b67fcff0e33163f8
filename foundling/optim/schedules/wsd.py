"""Warm-up, stable, decay: the peak rate, then a straight line down over the last part (Hu et al. 2024,
arXiv:2404.06395, section 4). One stable run serves runs of many lengths: only the decay differs."""

from typing import Annotated

from pydantic import Field

from foundling.core.log import logger
from foundling.core.units import Duration, length_of
from foundling.optim.schedules.base import Schedule, ScheduleConfig


class Config(ScheduleConfig):
    kind: str = "wsd"
    """Name of the part."""
    decay: Annotated[Duration, length_of("steps", "tokens", "share")] = Duration(0.4, "share")
    """Length of the fall at the end, in steps, tokens or as a share of the run."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the peak that would be reached one step after the last."""

    def after_warmup(self, steps: int, total_steps: int, tokens_per_step: float) -> Schedule:
        wanted = self.decay.steps(tokens_per_step=tokens_per_step, steps_per_epoch=0, total_steps=total_steps)
        if wanted > steps + 1 > 2:  # shares are rounded each by itself
            logger.warning(
                "schedule: the decay of %s steps is longer than what the warm-up leaves of the run (%s)",
                f"{wanted:,}", f"{steps:,}",
            )  # fmt: skip
        decay = max(1, min(wanted, steps))
        stable = steps - decay
        return lambda step: 1.0 if step < stable else 1 - (1 - self.final) * (step - stable) / decay
