"""Initial values, as named rules over a module's parameters. Run after `to_empty`, so a model may be built on meta."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

Scheme = Literal["normal", "scaled", "xavier"]
"""Spreads of a model's initial matrices. normal: all alike; scaled: those that write to the residual stream
/ sqrt(2 layers) (GPT-2); xavier: of a block's matrices sqrt(2 / (rows + columns)) (Glorot & Bengio 2010)."""


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


def writes(name: str) -> bool:
    """Whether a parameter is a matrix that writes to the residual stream."""
    return name.endswith((".out.weight", ".down.weight"))


def xavier_std(name: str, shape: torch.Size, query_rows: int) -> float:
    """sqrt(2 / (rows + columns)) of a matrix [rows, columns] (Glorot & Bengio 2010, section 4.2.1, normal).

    Each part of a fused matrix is a projection of its own. query_rows: rows of a `.qkv.` that make queries.
    """
    rows, columns = shape
    if ".qkv." in name:
        rows = query_rows
    elif ".kv." in name or ".gated." in name:
        rows //= 2
    return math.sqrt(2 / (rows + columns))


def scheme_std(
    scheme: Scheme, name: str, parameter: Tensor, *, std: float, num_layers: int, query_rows: int, in_block: bool
) -> float:
    """Spread of one parameter by a scheme. std: of what the scheme gives no spread of its own. in_block: whether the
    parameter belongs to a repeated layer. The others: see `xavier_std`, `residual_std`."""
    if scheme == "xavier" and in_block and parameter.ndim == 2 and name.endswith(".weight"):
        return xavier_std(name, parameter.shape, query_rows)
    return residual_std(std, num_layers) if scheme == "scaled" and writes(name) else std


def rows_like(rows_FD: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """New rows [number, D] from the normal distribution with the mean and covariance of given ones: what an embedding
    gives to tokens that nothing is known of (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language
    Models"). One given row is repeated.

    The covariance is never formed: a normal mixture of the centered rows has it.
    """
    step = -(-rows_FD.shape[0] // _MOST_ROWS)
    some_FD = rows_FD[::step].float()
    mean_D = rows_FD.float().mean(0)
    found = torch.empty(number, some_FD.shape[1])
    for rows_SD in found.split(_MOST_ROWS):
        mixture = torch.randn(len(rows_SD), some_FD.shape[0], generator=generator)
        rows_SD.copy_(mean_D + mixture @ (some_FD - mean_D) / math.sqrt(some_FD.shape[0]))
    return found


_MOST_ROWS = 4096
"""Rows whose covariance is taken, more than any width needs; also how many new ones are drawn at once."""
