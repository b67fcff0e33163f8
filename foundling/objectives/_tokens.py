"""The losses of target tokens, read from the head of a family's model."""

# Shapes: M = targets.

from torch import Tensor

from foundling.data.batch import Batch
from foundling.models.base import Hidden
from foundling.objectives.base import Losses, Scale
from foundling.optim.losses.base import Shape
from foundling.optim.losses.linear_cross_entropy import linear_cross_entropy, linear_nll


def token_losses(name: str, out: Hidden, batch: Batch, scale: Scale, compiled: bool, shape: Shape) -> Losses:
    """What a model is trained by that predicts the batch's targets: one part of this name."""
    loss, losses_M = linear_cross_entropy(
        out.hidden_MD, out.head_weight_VD, batch.targets_M, scale.per_target, compiled, out.head_bias_V, shape
    )  # fmt: skip
    return Losses({name: loss}, losses_M)


def token_nll(out: Hidden, batch: Batch) -> Tensor:
    """Cross entropy of each of the batch's targets, nats, fp32 [M], without gradients."""
    return linear_nll(out.hidden_MD, out.head_weight_VD, batch.targets_M, out.head_bias_V)
