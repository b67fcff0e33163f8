"""What an objective is: how token streams become samples and a `Batch`, and a model's answer to it a loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from foundling.data.batch import Batch
from foundling.data.order import Weights
from foundling.data.rows import Row, Samples, Stream
from foundling.models.base import Model


@dataclass(frozen=True)
class Scale:
    """What a micro-batch's sums are multiplied by, so that micro-batches and ranks add up to the step's mean."""

    per_target: float
    """Usually 1 / targets of the whole step."""
    per_row: float
    """Usually 1 / rows of the whole step: for a loss that every row has once."""


class Losses(NamedTuple):
    """What a batch is trained by."""

    parts: dict[str, Tensor]
    """By name, each summed over the batch and scaled: differentiable fp32 scalars, whose sum is what is minimised."""
    each: Tensor
    """The first part before it is summed and scaled: of each target [M], or of each row [R]; fp32, without gradient."""


class Objective(Protocol):
    """Built from a part's `Config.build(tokenizer)`; holds no weights.

    A part whose losses read heads that a model of the family may lack says so in its Config's `implied`: fields of the
    family's config, by name.
    """

    predicts_text: bool
    """Whether the losses of a text's targets add up to -log of its probability, so that bits per byte have a meaning
    (causal: yes; masked: no)."""

    def samples(
        self,
        streams: Sequence[Stream],
        weights: Weights | None,
        *,
        row_length: int,
        seed: int,
    ) -> Samples:
        """The order of the rows that this objective trains on. weights: of the streams, for `Order`; None: by size."""
        ...

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows to a batch. The same rows give the same batch: any randomness comes from the samples' numbers."""
        ...

    def loss(self, model: Model, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        """The batch's loss, with gradients. compiled: whether inner kernels are."""
        ...

    def scores(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Without gradients, for evaluation: `loss`, the loss of each target in nats, fp32 [M]; and whatever else
        has a mean over targets or rows that tells how good the model is, fp32 one-dimensional (`next_accuracy`)."""
        ...
