"""What a loss is: it weighs how wrong logits are. Of a vocabulary's logits it is computed fused, of a head's plainly.

A loss of classes is a function of log p, the log-probability of what is true, and of the log of the partition sum. That
makes one fused kernel serve all (`linear_cross_entropy`).
"""

# Shapes: R = rows, C = classes.

from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field
from torch import Tensor

from foundling.core.config import PartConfig
from foundling.core.errors import UserError

FOLDER = "optim.losses"


@dataclass(frozen=True)
class Shape:
    """What makes a loss of classes: sum over them of the smoothed truth times -(1 - p)^gamma log p, plus z log(Z)^2."""

    smoothing: float = 0.0
    """Share of the truth that is spread over all classes, in [0, 1)."""
    gamma: float = 0.0
    """How much less right answers count, at least 0; only without smoothing."""
    z: float = 0.0
    """Weight of the squared log of the partition sum."""

    @property
    def is_plain(self) -> bool:
        return self == Shape()

    def of_truth(self, log_p: Tensor, log_z: Tensor, mean: Tensor) -> Tensor:
        """The loss without its z part, any shape: of the log-probability of what is true, the log of the partition sum
        and the mean of the logits."""
        losses = -log_p
        if self.gamma:
            losses = (1 - log_p.exp()).clamp_min(1e-12) ** self.gamma * losses
        if self.smoothing:
            losses = (1 - self.smoothing) * losses + self.smoothing * (log_z - mean)
        return losses


PLAIN = Shape()


class Loss(Protocol):
    """Built from a loss's `Config`."""

    def of_logits(self, logits: Tensor, truth: Tensor) -> Tensor:
        """The loss of each row, fp32 [R]; logits: [R, C]; truth: what the loss says."""
        ...


class ClassLossConfig(PartConfig):
    """What losses of one class among several have."""

    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of log(Z)^2, which keeps logits from drifting (PaLM, arXiv:2204.02311, section 5: 1e-4)."""

    @property
    def shape(self) -> Shape:
        return Shape(z=self.z_loss)

    def build(self, class_weights: Tensor | None = None) -> "ClassLoss":
        """class_weights: what each class counts, fp32 [C]; None: all alike."""
        return ClassLoss(self.shape, class_weights)


def shape_of(config: PartConfig | None) -> Shape:
    """What a loss of tokens is computed by; None: cross entropy. UserError: it is none of one true class."""
    if config is None:
        return PLAIN
    if not isinstance(config, ClassLossConfig):
        raise UserError(
            "objective.loss must be one of one true token: cross_entropy, label_smoothing, focal", got=config.kind
        )
    return config.shape


@dataclass(frozen=True)
class ClassLoss:
    """One true class of each row: `truth` is int64 [R]."""

    shape: Shape
    class_weights: Tensor | None

    def of_logits(self, logits_RC: Tensor, truth_R: Tensor) -> Tensor:
        x_RC = logits_RC.float()
        log_z_R = x_RC.logsumexp(-1)
        log_p_R = x_RC.gather(-1, truth_R[:, None])[:, 0] - log_z_R
        losses_R = self.shape.of_truth(log_p_R, log_z_R, x_RC.mean(-1))
        if self.class_weights is not None:
            losses_R = losses_R * self.class_weights.to(losses_R.device)[truth_R]
        if self.shape.z:
            losses_R = losses_R + self.shape.z * log_z_R.square()
        return losses_R


def weighted_mean(losses_RC: Tensor, weights_C: Tensor | None) -> Tensor:
    """The mean over classes of each row, fp32 [R]."""
    return (losses_RC if weights_C is None else losses_RC * weights_C.to(losses_RC.device)).mean(-1)
