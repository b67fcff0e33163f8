"""Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1), with weight decay as a part of the gradient: torch's `Adam`.

What decay does then depends on the second moment: weights with large gradients are hardly decayed. For decay as it is
meant today take adamw.
"""

from typing import Annotated

from pydantic import Field

from foundling.optim.adamw import AdamW, Beta
from foundling.optim.base import OptimizerConfig, Rule


class Config(OptimizerConfig):
    kind: str = "adam"
    """Name of the part."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty of matrices: so many times the weights are added to the gradient; vectors (norms, biases) have none
    unless a group says so."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the first and second moment per step."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""

    def build(self) -> Rule:
        return AdamW(self.betas, self.eps, coupled=True)
