"""Exponential moving average of the weights (Polyak & Juditsky 1992; Tarvainen & Valpola 2017, arXiv:1703.01780)."""

from typing import Annotated

from pydantic import Field

from foundling.optim.averages.base import Average, AverageConfig


class Config(AverageConfig):
    kind: str = "ema"
    """Name of the part."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """What the average keeps of itself at each step; it looks back over about 1 / (1 - decay) steps."""
    warmup: bool = True
    """Whether early steps look back less far: at step n by the decay (1 + n) / (10 + n), until that is larger. Without
    it the initial weights remain a part of the average for several times as long as it looks back."""

    def build(self, total_steps: int, tokens_per_step: float) -> Average:
        def share(step: int) -> float:
            if step == 1:
                return 1.0
            return 1 - min(self.decay, (1 + step) / (10 + step) if self.warmup else 1.0)

        return Average(1, share)
