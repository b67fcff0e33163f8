"""Plain mean of the weights at the last few points of the run, equally far from each other, the last step among them:
averaged checkpoints (Vaswani et al. 2017, arXiv:1706.03762, section 6.1); with `every: 1 step` the mean of a tail."""

from typing import Annotated

from pydantic import Field

from foundling.core.units import Duration, length_of
from foundling.optim.averages.base import Average, AverageConfig


class Config(AverageConfig):
    kind: str = "last"
    """Name of the part."""
    number: Annotated[int, Field(ge=1)] = 5
    """How many points are averaged; fewer where the run is too short for them."""
    every: Annotated[Duration, length_of("steps", "tokens", "share")] = Duration(0.02, "share")
    """How far they lie from each other, in steps, tokens or as a share of the run; at least one step."""

    def build(self, total_steps: int, tokens_per_step: float) -> Average:
        every = max(1, self.every.steps(tokens_per_step=tokens_per_step, steps_per_epoch=0, total_steps=total_steps))
        number = min(self.number, 1 + (total_steps - 1) // every)
        first = total_steps - (number - 1) * every

        def share(step: int) -> float:
            behind, off = divmod(step - first, every)
            return 0.0 if step < first or step > total_steps or off else 1 / (behind + 1)

        return Average(first, share)
