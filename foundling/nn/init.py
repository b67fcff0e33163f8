"""Initial values, as named rules over a module's parameters. Run after `to_empty`, so a model may be built on meta."""

import math

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def fill_(name: str, parameter: Tensor, std: float, generator: torch.Generator | None = None) -> None:
    """One parameter by its shape and name: `bias` is 0, another vector (a norm's weight) is 1, a matrix is normal.

    The whole tensor is drawn on CPU in fp32 whatever the parameter's device, type or sharding, so one seed gives one
    model on any machine and any number of processes.
    """
    whole = torch.empty(parameter.shape)
    if parameter.ndim >= 2:
        whole.normal_(0.0, std, generator=generator)
    else:
        whole.fill_(0.0 if name.rsplit(".", 1)[-1] == "bias" else 1.0)
    place_(parameter, whole)


def place_(parameter: Tensor, whole: Tensor) -> None:
    """Copies a whole tensor into a parameter; a sharded one takes its own piece. In place."""
    with torch.no_grad():
        if isinstance(parameter, DTensor):
            size, offset = compute_local_shape_and_global_offset(
                parameter.shape, parameter.device_mesh, parameter.placements
            )
            piece = whole[tuple(slice(o, o + s) for o, s in zip(offset, size, strict=True))]
            parameter.to_local().copy_(piece)
        else:
            parameter.copy_(whole)


def residual_std(std: float, num_layers: int) -> float:
    """GPT-2's spread of matrices that write to the residual stream: std / sqrt(2 layers) (Radford et al. 2019)."""
    return std / math.sqrt(2 * num_layers)
