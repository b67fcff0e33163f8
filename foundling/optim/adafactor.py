"""Adafactor: second moments of a matrix as one row and one column, steps relative to the weights' size (Shazeer & Stern
2018, arXiv:1804.04235, algorithm 4).

As `torch.optim.Adafactor` has it: `lr` is the largest relative step (the paper's 0.01) and what decay is multiplied by,
and tiny second moments are lifted to eps^2 where they are used. transformers' adds 1e-30 to each squared gradient
instead; where gradients are not that small both do the same. There is no first moment.
"""

# Shapes: P = a parameter's, its last two dimensions rows and columns; R = P with one column, C = P with one row,
# S = P with one of each; K = parameters.

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from foundling.optim.base import (
    OptimizerConfig,
    Rule,
    Slot,
    every_dim,
    local,
    sharded_dim,
    sum_of_squares,
    sum_over_shards,
)
from foundling.optim.compile_lazily import compile_lazily

_RELATIVE_LR = 0.01
_ADAMW = 1.2e-3 * math.sqrt(256)
"""AdamW's rate times sqrt(width) of a model with initial weights, 256 wide: steps are relative to matrices of size
1 / sqrt(width)."""


class Config(OptimizerConfig):
    kind: str = "adafactor"
    """Name of the part."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of matrices; vectors (norms, biases) have none unless a group says so."""
    beta2_decay: Annotated[float, Field(lt=0)] = -0.8
    """At step t the second moment keeps 1 - t^beta2_decay of itself."""
    eps: tuple[Annotated[float, Field(gt=0)] | None, Annotated[float, Field(gt=0)]] = (None, 1e-3)
    """Smallest root of a second moment (None: fp32's 1.2e-7), and the smallest size of weights that steps are relative
    to."""
    clip_update: Annotated[float, Field(gt=0)] = 1.0
    """Largest root mean square of a parameter's update, before the rate."""

    def build(self) -> Rule:
        return Adafactor(self)

    def default_lr(self, adamw_lr: float, width: int) -> float:
        return _RELATIVE_LR * adamw_lr * math.sqrt(width) / _ADAMW


class Adafactor(Rule):
    """Sums over a sharded parameter's other shards take three all-reduces a step, for all parameters together."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def init(self, slot: Slot) -> dict[str, Tensor]:
        if slot.master.ndim < 2:
            return {"second_moment": torch.zeros_like(slot.master)}
        return {"row_moment": _zeros_without(-1, slot), "column_moment": _zeros_without(-2, slot)}

    def step(self, slots: list[Slot], step: int, lr_factor: float, gradient_factor: float, compiled: bool) -> None:
        c, factor = self.config, gradient_factor
        eps = c.eps[0] or torch.finfo(torch.float32).eps
        size_of, apply = (_size_compiled, _apply_compiled) if compiled else (_size, _apply)
        self._update_moments(slots, step**c.beta2_decay, factor, compiled)
        scales = self._scales(slots)
        numbers = torch.tensor([factor, eps], device=slots[0].master.device)
        sizes_2K = torch.stack(
            [
                torch.stack([sum_of_squares(slot.master).float() for slot in slots]),
                torch.stack(
                    [size_of(slot.gradient, *scale, numbers) for slot, scale in zip(slots, scales, strict=True)]
                ),
            ]
        )
        sum_over_shards(
            [(size, slot.parameter, every_dim(slot)) for row in sizes_2K for size, slot in zip(row, slots, strict=True)]
        )
        numels = torch.tensor([slot.parameter.numel() for slot in slots], device=sizes_2K.device)
        weights, updates = (sizes_2K / numels).sqrt()
        largest = [min(slot.lr * lr_factor, step**-0.5) for slot in slots]
        rates = torch.tensor(largest, device=sizes_2K.device) * weights.clamp(min=c.eps[1])
        rates /= (updates / c.clip_update).clamp(min=1)
        for slot, scale, rate in zip(slots, scales, rates, strict=True):
            keep = torch.tensor(1 - slot.lr * lr_factor * slot.weight_decay, device=rate.device)
            apply(slot.master, slot.gradient, *scale, slot.copy, torch.cat([numbers, torch.stack([rate, keep])]))

    def _update_moments(self, slots: list[Slot], rest: float, factor: float, compiled: bool) -> None:
        """Moves each second moment by `rest` = 1 - beta2 to this step's."""
        squares_of = _squares_compiled if compiled else _squares
        number = torch.tensor(factor, device=slots[0].master.device)
        matrices = [slot for slot in slots if slot.parameter.ndim >= 2]
        found = [squares_of(slot.gradient, number) for slot in matrices]
        sums = []
        for slot, (rows_R, columns_C) in zip(matrices, found, strict=True):
            last = slot.parameter.ndim - 1
            sums += [(rows_R, slot.parameter, (last,)), (columns_C, slot.parameter, (last - 1,))]
        sum_over_shards(sums)
        for slot, (rows_R, columns_C) in zip(matrices, found, strict=True):
            num_rows, num_columns = slot.parameter.shape[-2:]
            local(slot.state["row_moment"]).lerp_(rows_R / num_columns, rest)
            local(slot.state["column_moment"]).lerp_(columns_C / num_rows, rest)
        for slot in slots:
            if slot.parameter.ndim < 2:
                slot.state["second_moment"].lerp_((slot.gradient * factor).square(), rest)

    def _scales(self, slots: list[Slot]) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
        """What the second moment of each parameter is the product of: rows, columns over the rows' mean; or itself."""
        sums = {
            slot.name: local(slot.state["row_moment"]).sum(-2, keepdim=True)
            for slot in slots
            if slot.parameter.ndim >= 2
        }
        sum_over_shards([(sums[s.name], s.parameter, (s.parameter.ndim - 2,)) for s in slots if s.name in sums])
        found: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
        for slot in slots:
            if slot.name not in sums:
                found.append((slot.state["second_moment"], None, None))
                continue
            mean_S = sums[slot.name] / slot.parameter.shape[-2]
            found.append((local(slot.state["row_moment"]), local(slot.state["column_moment"]), mean_S))
        return found


def _zeros_without(dim: int, slot: Slot) -> Tensor:
    """Zeros of the parameter's shape with size 1 along a dimension, sharded along the others as it is."""
    zeros = torch.zeros_like(slot.master).sum(dim, keepdim=True)
    parameter = slot.parameter
    if not isinstance(parameter, DTensor):
        return zeros
    along = dim % parameter.ndim
    shape = torch.Size(1 if d == along else size for d, size in enumerate(parameter.shape))
    stride = torch.empty(shape, device="meta").stride()
    placements = [Replicate() if sharded_dim(p) == along else p for p in parameter.placements]
    return DTensor.from_local(zeros, parameter.device_mesh, placements, run_check=False, shape=shape, stride=stride)


def _squares(gradient_P: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the squares of a local gradient by row [R] and by column [C]."""
    squares_P = (gradient_P * factor).square()
    return squares_P.sum(-1, keepdim=True), squares_P.sum(-2, keepdim=True)


def _direction(
    gradient_P: Tensor, rows: Tensor, columns: Tensor | None, mean: Tensor | None, numbers: Tensor
) -> Tensor:
    """The update [P] before its size is limited. rows alone: the second moment itself."""
    factor, eps = numbers[:2].unbind()
    variance = rows
    if columns is not None and mean is not None:
        variance = rows * columns / mean.clamp(min=eps)
    return gradient_P * factor * variance.clamp(min=eps * eps).rsqrt()


def _size(gradient_P: Tensor, rows: Tensor, columns: Tensor | None, mean: Tensor | None, numbers: Tensor) -> Tensor:
    """Sum of the squares of a local update. It is made again where it is applied, so that no two are in memory."""
    return _direction(gradient_P, rows, columns, mean, numbers).square().sum()


def _apply(
    master_P: Tensor,
    gradient_P: Tensor,
    rows: Tensor,
    columns: Tensor | None,
    mean: Tensor | None,
    copy_P: Tensor | None,
    numbers: Tensor,
) -> None:
    _, _, rate, keep = numbers.unbind()
    w = master_P * keep - rate * _direction(gradient_P, rows, columns, mean, numbers)
    master_P.copy_(w)
    if copy_P is not None:
        copy_P.copy_(w)


_squares_compiled = compile_lazily(_squares)
_size_compiled = compile_lazily(_size)
_apply_compiled = compile_lazily(_apply)
