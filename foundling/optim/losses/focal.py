"""Focal loss: what is nearly right counts less (Lin et al. 2017, arXiv:1708.02002, equation 4)."""

from typing import Annotated

from pydantic import Field

from foundling.optim.losses.base import ClassLossConfig, Shape


class Config(ClassLossConfig):
    kind: str = "focal"
    """Name of the part."""
    gamma: Annotated[float, Field(ge=0)] = 2.0
    """Power of 1 - p that a loss is multiplied by, at least 0; 0: cross entropy."""

    @property
    def shape(self) -> Shape:
        return Shape(gamma=self.gamma, z=self.z_loss)
