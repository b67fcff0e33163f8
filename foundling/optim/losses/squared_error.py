"""Squared error, of numbers."""

from dataclasses import dataclass

from torch import Tensor

from foundling.core.config import PartConfig
from foundling.optim.losses.base import weighted_mean


class Config(PartConfig):
    kind: str = "squared_error"
    """Name of the part."""

    def build(self, class_weights: Tensor | None = None) -> "SquaredError":
        return SquaredError(class_weights)


@dataclass(frozen=True)
class SquaredError:
    """The mean over outputs; `truth` is fp32 [R, C]."""

    class_weights: Tensor | None

    def of_logits(self, outputs_RC: Tensor, truth_RC: Tensor) -> Tensor:
        return weighted_mean((outputs_RC.float() - truth_RC).square(), self.class_weights)
