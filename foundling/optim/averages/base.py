"""What a weight average is: a pure function of the step. The average itself lies in the optimizer, in fp32.

After each step that counts, average += share * (weights - average).
"""

from collections.abc import Callable
from dataclasses import dataclass

from foundling.core.config import PartConfig


@dataclass(frozen=True)
class Average:
    """Which steps count, and for how much."""

    first_step: int
    """The first step that counts; steps count from 1, and its share is 1."""
    share: Callable[[int], float]
    """How far the average moves to the weights after a step, in [0, 1]; 0: the step does not count."""


class AverageConfig(PartConfig):
    """What every average has."""

    def build(self, total_steps: int, tokens_per_step: float) -> Average:
        """The average over a run of `total_steps`."""
        raise NotImplementedError
