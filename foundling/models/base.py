"""What every model family offers the engine."""

# Shapes: N = packed tokens, M = chosen positions, D = width, V = vocabulary.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundling.data.batch import Batch
from foundling.nn.attention import Kernel

Style = Literal["colwise", "rowwise", "headwise"]
"""How a layer is split: by outputs, by inputs, or not, though it works on split heads [N, H, K] (a norm of heads)."""


def family_of(config: Any) -> str:
    """Name of the family that a config is of."""
    return str(type(config).__module__).rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Hidden:
    """The last hidden states where a loss reads them, and what would turn them into logits: nobody pays unasked."""

    hidden_MD: Tensor
    """At the positions that the batch's `target_index_M` names; at all N where it is None."""
    head_weight_VD: Tensor
    head_bias_V: Tensor | None = None
    next_logits_RC: Tensor | None = None
    """Of a model with a sentence-level head: its logits for each row (does B follow A)."""

    def logits(self) -> Tensor:
        """Logits [M, V]."""
        return F.linear(self.hidden_MD, self.head_weight_VD, self.head_bias_V)


class Model(Protocol):
    """A language model as the loop, the objectives and the parallel floor know it: an `nn.Module` with these."""

    parallel_plan: ClassVar[dict[str, Style]]
    """Tensor-parallel style of each layer that has one, by name pattern."""

    @property
    def lr_factors(self) -> Mapping[str, float]:
        """What the learning rate is multiplied by for some parameters that begin at initial values, by name pattern."""
        ...

    @property
    def matrices(self) -> Mapping[str, int | None]:
        """Name patterns of the matrices that lead from hidden states to hidden states, each with the rows of an
        attention head where its rows are heads (of an optimizer that treats such matrices in its own way)."""
        ...

    def __call__(self, batch: Batch) -> Hidden:
        """What a loss reads: the answer at the batch's targets."""
        ...

    def encode(self, batch: Batch, wanted_W: Tensor | None = None) -> Tensor:
        """Hidden states after the last block and norm, which task heads read: of all tokens [N, D], or [W, D] of
        those that are wanted (int64 [W], places among the N)."""
        ...

    def blocks(self) -> Sequence[nn.Module]:
        """The repeated layers, in order: what is compiled, checkpointed and sharded one by one."""
        ...

    def set_kernel(self, kernel: Kernel, *, compiled: bool = False) -> None:
        """Chooses the attention kernel of every layer. compiled: whether blocks are compiled, on CPU."""
        ...

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Fills all parameters with their initial values, in place; they may come from `to_empty`."""
        ...

    def flops_per_token(self, row_length: int) -> float:
        """Model FLOPs of one token, forward and backward, in rows of this length (6 per weight, causal-exact)."""
        ...
