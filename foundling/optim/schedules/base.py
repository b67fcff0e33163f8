"""What a schedule is: a pure function of the step."""

from collections.abc import Callable
from typing import Annotated

from foundling.core.config import PartConfig
from foundling.core.log import logger
from foundling.core.units import Duration, length_of

Schedule = Callable[[int], float]
"""Factor of the peak learning rate at a step; steps count from 0."""


class ScheduleConfig(PartConfig):
    """What every schedule has."""

    warmup: Annotated[Duration, length_of("steps", "tokens", "share")] = Duration(0.02, "share")
    """Linear rise from 0 to the peak, in steps, tokens or as a share of the run."""

    def build(self, total_steps: int, tokens_per_step: float) -> Schedule:
        """The factor at each step of a run of `total_steps`."""
        warmup = self.warmup.steps(tokens_per_step=tokens_per_step, steps_per_epoch=0, total_steps=total_steps)
        if warmup >= total_steps:
            logger.warning(
                "schedule: the warm-up of %s steps is not shorter than the run (%s): the rate rises to its last step",
                f"{warmup:,}", f"{total_steps:,}",
            )  # fmt: skip
        warmup = min(warmup, total_steps)
        after = self.after_warmup(max(1, total_steps - warmup), total_steps, tokens_per_step)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return after(max(0, min(step, total_steps - 1) - warmup))

        return factor

    def after_warmup(self, steps: int, total_steps: int, tokens_per_step: float) -> Schedule:
        """The factor at each of the `steps` after warm-up, which count from 0."""
        raise NotImplementedError
