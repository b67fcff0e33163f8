"""The position-wise networks of a block."""

# Shapes: N = packed tokens, D = width, F = inner width.

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundling.nn.gelu import gelu


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh form (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2), as GPT-2 uses it.

    0.5 (1 + tanh u) is sigmoid(2u): one exponential instead of a tanh, which has no fast vector form on CPU
    (forward and backward of 75M values: 45 ms against 130 ms).
    """
    y = x.float()
    return (y * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (y + 0.044715 * y * y * y))).to(x.dtype)


class GeluMlp(nn.Module):
    """Two matrices with GELU between, as in GPT-2."""

    def __init__(self, width: int, inner_width: int, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner_width, bias=bias)
        self.down = nn.Linear(inner_width, width, bias=bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.down(gelu_tanh(self.up(x_ND)))


class SwigluMlp(nn.Module):
    """Gated unit with SiLU (Shazeer 2020, arXiv:2002.05202), as in Llama and Qwen."""

    def __init__(self, width: int, inner_width: int, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner_width, bias=bias)
        self.up = nn.Linear(width, inner_width, bias=bias)
        self.down = nn.Linear(inner_width, width, bias=bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        gate_NF = self.gate(x_ND)
        return self.down((F.silu(gate_NF.float()) * self.up(x_ND).float()).to(x_ND.dtype))


class ReluMlp(nn.Module):
    """Two matrices with max(0, x) between (Vaswani et al. 2017, arXiv:1706.03762, section 3.3)."""

    def __init__(self, width: int, inner_width: int, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner_width, bias=bias)
        self.down = nn.Linear(inner_width, width, bias=bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x_ND)))


class ErfGeluMlp(GeluMlp):
    """Two matrices with GELU between in its exact form, x P(X <= x), as in BERT."""

    keeps_slope: bool = False
    """Whether the forward pass keeps the slope for the backward (nn/gelu.py): for compiled runs on CPU."""

    def forward(self, x_ND: Tensor) -> Tensor:
        inner_NF = self.up(x_ND)
        return self.down(gelu(inner_NF) if self.keeps_slope else F.gelu(inner_NF))


class GegluMlp(nn.Module):
    """Gated unit with GELU (Shazeer 2020, arXiv:2002.05202), as in ModernBERT, from one fused matrix.

    Rows of `gated` lie in blocks: `block` gates, then the `block` units that they gate, and so on. So a split of its
    output over devices is a split of whole blocks.
    """

    def __init__(self, width: int, inner_width: int, bias: bool) -> None:
        super().__init__()
        self.block = gate_block(inner_width)
        self.gated = nn.Linear(width, 2 * inner_width, bias=bias)
        self.gated.unit_rows = 2 * self.block  # type: ignore[assignment]  # for the parallel floor: not cut smaller
        self.down = nn.Linear(inner_width, width, bias=bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        gate, unit = self.gated(x_ND).view(x_ND.shape[0], -1, 2, self.block).unbind(2)
        return self.down((F.gelu(gate.float()) * unit.float()).to(x_ND.dtype).flatten(1))


def gate_block(inner_width: int) -> int:
    """Rows of a block of `GegluMlp`: the largest power of two up to 16 that divides the inner width."""
    return math.gcd(inner_width, 16)
