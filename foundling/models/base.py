"""What every model family offers the engine."""

# Shapes: N = packed tokens, M = chosen positions, D = width, V = vocabulary.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundling.data.batch import Batch
from foundling.nn.attention import Kernel

Style = Literal["colwise", "rowwise", "headwise"]
"""How a layer is split: by outputs, by inputs, or not, though it works on split heads [N, H, K] (a norm of heads)."""


@dataclass(frozen=True)
class Hidden:
    """The last hidden states and the matrix that would turn them into logits. Nobody pays for logits unasked."""

    hidden_ND: Tensor
    head_weight_VD: Tensor

    def logits(self, index_M: Tensor | None = None) -> Tensor:
        """Logits [M, V] at the chosen positions, or [N, V] at all."""
        hidden = self.hidden_ND if index_M is None else self.hidden_ND[index_M]
        return F.linear(hidden, self.head_weight_VD)


class Model(Protocol):
    """A language model as the loop, the objectives and the parallel floor know it: an `nn.Module` with these."""

    parallel_plan: ClassVar[dict[str, Style]]
    """Tensor-parallel style of each layer that has one, by name pattern."""

    lr_factors: ClassVar[dict[str, float]]
    """What the default learning rate is multiplied by for some parameters, by name pattern."""

    def __call__(self, batch: Batch) -> Hidden: ...

    def blocks(self) -> Sequence[nn.Module]:
        """The repeated layers, in order: what is compiled, checkpointed and sharded one by one."""
        ...

    def set_kernel(self, kernel: Kernel) -> None:
        """Chooses the attention kernel of every layer."""
        ...

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Fills all parameters with their initial values, in place; they may come from `to_empty`."""
        ...

    def flops_per_token(self, row_length: int) -> float:
        """Model FLOPs of one token, forward and backward, in rows of this length (6 per weight, causal-exact)."""
        ...
