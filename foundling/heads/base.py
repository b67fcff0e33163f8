"""What a head is: it turns the hidden states that it asks for into the logits of a task."""

# Shapes: W = places that the head reads, R = rows, D = width of the body, C = classes.

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from foundling.core.config import PartConfig
from foundling.data.batch import Batch
from foundling.nn.init import fill_
from foundling.nn.norms import LayerNorm

FOLDER = "heads"

Inner = Literal["none", "tanh", "gelu"]
"""What a hidden state passes through before the last matrix: nothing; a matrix and tanh (the pooler of BERT, the
summary of XLNet); a matrix, GELU and a norm (ModernBERT)."""


class HeadConfig(PartConfig):
    """What every head has."""

    num_classes: Annotated[int, Field(ge=1)]
    """Numbers that the head gives at each place."""
    inner: Inner = "none"
    """What stands before the last matrix: `none`, `tanh`, or `gelu` with a norm."""
    bias: bool = True
    """Whether the last matrix has a bias."""
    norm_eps: float = 1e-5
    """gelu: added to the variance in the norm."""
    init_std: float = 0.02
    """Spread of the initial matrices."""

    def build(self, width: int) -> "Head":
        """The head on hidden states of this width."""
        raise NotImplementedError


class Head(nn.Module):
    """A matrix on the hidden states at the batch's `target_index_M`, behind an inner one where the config says so."""

    whole_row: ClassVar[bool] = False
    """Whether what it reads stands for the whole row."""
    lr_factors: ClassVar[dict[str, float]] = {}
    """Parameters that learn at a multiple of the rate, by name. A fine-tuning's rate is made for pretrained weights: in
    300 steps of 5e-5 Adam moves a parameter by 0.015 at most, and a score that starts at 0 must move by whole nats."""

    def __init__(self, config: HeadConfig, width: int, read_width: int | None = None) -> None:
        """width: of the body; read_width: of what the head reads, where it is another."""
        super().__init__()
        read_width = read_width or width
        self.config = config
        self.inner = None if config.inner == "none" else nn.Linear(read_width, width, bias=config.inner == "tanh")
        self.norm = LayerNorm(width, config.norm_eps, bias=False) if config.inner == "gelu" else None
        self.dropout: nn.Module = nn.Identity()
        """On what the last matrix reads; the model gives it its body's."""
        self.out = nn.Linear(width if self.inner is not None else read_width, config.num_classes, bias=config.bias)

    def forward(self, hidden_WD: Tensor, batch: Batch) -> Tensor:
        """Logits [W, C], in the type of the hidden states."""
        x_WD = hidden_WD
        if self.inner is not None:
            x_WD = self.inner(x_WD)
            x_WD = x_WD.tanh() if self.norm is None else self.norm(F.gelu(x_WD))
        logits_WC: Tensor = self.out(self.dropout(x_WD))
        return logits_WC

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Fills all parameters with their initial values, in place."""
        for name, parameter in self.named_parameters():
            fill_(name, parameter, self.config.init_std, generator)
