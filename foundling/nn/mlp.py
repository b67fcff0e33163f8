"""The position-wise networks of a block."""

# Shapes: N = packed tokens, D = width, F = inner width.

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
