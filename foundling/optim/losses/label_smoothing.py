"""Cross entropy with a smoothed truth (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""

from typing import Annotated

from pydantic import Field

from foundling.optim.losses.base import ClassLossConfig, Shape


class Config(ClassLossConfig):
    kind: str = "label_smoothing"
    """Name of the part."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the truth that is spread over all classes, in [0, 1)."""

    @property
    def shape(self) -> Shape:
        return Shape(smoothing=self.smoothing, z=self.z_loss)
