"""What an objective is: how rows of tokens become a `Batch`, and a model's answer to it a loss."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from foundling.data.batch import Batch
from foundling.data.rows import Row
from foundling.models.base import Model


class Objective(Protocol):
    """Built from a part's `Config`; holds no weights."""

    extra_tokens: int
    """How many tokens more than the sequence length a row must bring (causal: 1, the last target)."""

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows to a batch. The same rows give the same batch: any randomness comes from the samples' numbers."""
        ...

    def loss(self, model: Model, batch: Batch, scale: float, compiled: bool) -> Tensor:
        """Summed loss over the batch's targets x scale: a fp32 scalar, differentiable.

        scale is usually 1 / targets of the whole step, so micro-batches and ranks add up to the whole batch's mean.
        """
        ...

    def token_losses(self, model: Model, batch: Batch) -> Tensor:
        """Loss of each target, fp32 [M], in nats, without gradients: for evaluation."""
        ...
