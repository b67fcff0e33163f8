"""Initial values, as named rules over a module's parameters. Run after `to_empty`, so a model may be built on meta."""

import math

import torch
from torch import Tensor, nn


def normal_(module: nn.Module, std: float, generator: torch.Generator | None = None) -> None:
    """Matrices and embeddings from a normal of the given spread; biases 0; norm weights 1. In place."""
    for name, parameter in module.named_parameters():
        fill_(name, parameter, std, generator)


def fill_(name: str, parameter: Tensor, std: float, generator: torch.Generator | None = None) -> None:
    """One parameter by its shape and name: `bias` is 0, another vector (a norm's weight) is 1, a matrix is normal."""
    with torch.no_grad():
        if parameter.ndim >= 2:
            parameter.normal_(0.0, std, generator=generator)
        else:
            parameter.fill_(0.0 if name.rsplit(".", 1)[-1] == "bias" else 1.0)


def residual_std(std: float, num_layers: int) -> float:
    """GPT-2's spread for matrices that write to the residual stream: std / sqrt(2 layers) (Radford et al. 2019, 2.3)."""
    return std / math.sqrt(2 * num_layers)
