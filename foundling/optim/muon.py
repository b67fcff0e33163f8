"""Muon: momentum, made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), for the matrices
between hidden states; AdamW for all else (embeddings, heads, norms, biases).

The model says which matrices these are. All of one shape are made orthogonal at once. With `by_head`, each attention
head of a matrix whose rows are heads is a matrix of its own, which is cheaper: products of 64 x width, not of width x
width.

Sharded matrices: where each process holds whole heads there is nothing to exchange. Otherwise each matrix has one
process that owns it, gets it whole, and hands back the pieces of its update: two all-to-alls for all matrices of one
shape (torch's Muon takes eleven all-reduces for each matrix). Momentum stays sharded.
"""

# Shapes: A x B = a matrix that is made orthogonal: a parameter, or one head of it.

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from foundling.core.config import Strict
from foundling.core.errors import UserError
from foundling.optim._orthogonal import orthogonalized, polar_express, quintic
from foundling.optim._owners import Owners, Span, spans_of
from foundling.optim.adamw import AdamW, Beta
from foundling.optim.base import OptimizerConfig, Rule, Slot
from foundling.optim.compile_lazily import compile_lazily

_BATCH_ELEMENTS = 2**26
"""Matrices of at most so many elements are in work at once: 256 MiB in fp32, while products of that size are far from
being too small for any device."""


class Inner(Strict):
    """AdamW, for the parameters that are no matrices between hidden states."""

    lr: Annotated[float, Field(gt=0)] | None = None
    """Peak rate; None: AdamW's own for this model."""
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """Decay of the first and second moment per step."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""


class Config(OptimizerConfig):
    knows_matrices: ClassVar[bool] = True

    kind: str = "muon"
    """Name of the part."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """What the running mean of gradients keeps of itself per step."""
    nesterov: bool = True
    """Whether the update looks one momentum ahead."""
    scale: Literal["adamw", "shape"] = "adamw"
    """Size of an update of A x B weights before the rate. adamw: 0.2 in root mean square, as AdamW's are, whose rates
    then serve (Liu et al. 2025, arXiv:2502.16982, section 2.2); shape: singular values of sqrt(max(1, A / B)), for
    rates of about 0.02 (Jordan)."""
    coefficients: Literal["polar_express", "quintic"] = "polar_express"
    """Polynomials that make a matrix orthogonal. polar_express: each step has its own (Amsel et al. 2025,
    arXiv:2505.16932); quintic: Jordan's one for all."""
    steps: Annotated[int, Field(ge=1, le=20)] = 5
    """How many of them."""
    by_head: bool = True
    """Whether each attention head of a matrix of queries, keys and values is a matrix of its own."""
    cautious: bool = False
    """Whether a weight decays only where its update makes it smaller too (Chen et al. 2025, arXiv:2510.12402)."""
    adamw: Inner = Inner()
    """For all parameters that are no matrices between hidden states."""

    def build(self) -> Rule:
        return Muon(self)

    def default_lr(self, adamw_lr: float, width: int) -> float:
        return adamw_lr if self.scale == "adamw" else 0.2 * math.sqrt(width) * adamw_lr

    def with_rates(self, adamw_lr: float, width: int) -> Self:
        inner = self.adamw if self.adamw.lr is not None else self.adamw.model_copy(update={"lr": adamw_lr})
        return super().with_rates(adamw_lr, width).model_copy(update={"adamw": inner})

    def lr_of(self, hidden: bool, lr: float) -> float:
        return lr if hidden or self.adamw.lr is None else self.adamw.lr


@dataclass
class _Batch:
    """Parameters whose matrices are made orthogonal together, A x B each."""

    shape: tuple[int, int]
    slots: list[Slot]
    owners: Owners | None
    """None: what is here is whole."""


class Muon(Rule):
    def __init__(self, config: Config) -> None:
        self.config = config
        self._inner = AdamW(config.adamw.betas, config.adamw.eps)
        self._batches: list[_Batch] = []
        polynomials = polar_express if config.coefficients == "polar_express" else quintic
        self._steps = polynomials(config.steps)

    def init(self, slot: Slot) -> dict[str, Tensor]:
        return {"momentum": torch.zeros_like(slot.master)} if slot.hidden else self._inner.init(slot)

    def prepare(self, slots: list[Slot]) -> None:
        hidden = [slot for slot in slots if slot.hidden]
        if not hidden:
            raise UserError(
                "muon must have matrices between hidden states to train", got="none", do="take optimizer.kind: adamw"
            )
        spans = _spans(hidden)
        alike: dict[tuple[tuple[int, int], DeviceMesh | None, int], list[Slot]] = {}
        for slot in hidden:
            parameter, (rows, columns) = slot.parameter, slot.parameter.shape
            head_rows = slot.head_rows if self.config.by_head and slot.head_rows else rows
            assert rows % head_rows == 0, (slot.name, rows, head_rows)
            held = all(span.holds_blocks(head_rows, columns) for span in spans.get(slot.name, []))
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) and not held else None
            # with owners, matrices of one shape; without, all whose heads have one shape
            alike.setdefault(((head_rows, columns), mesh, 0 if mesh is None else rows), []).append(slot)
        for (shape, mesh, rows), found in alike.items():
            for run in _runs(found):
                spans_here = [spans[slot.name] for slot in run if mesh is not None]
                owners = None if mesh is None else Owners(mesh, (rows, shape[1]), spans_here)
                self._batches.append(_Batch(shape, run, owners))

    def step(self, slots: list[Slot], step: int, lr_factor: float, gradient_factor: float, compiled: bool) -> None:
        for batch in self._batches:
            self._step(batch, lr_factor, gradient_factor, compiled)
        self._inner.step([slot for slot in slots if not slot.hidden], step, lr_factor, gradient_factor, compiled)

    def _step(self, batch: _Batch, lr_factor: float, gradient_factor: float, compiled: bool) -> None:
        momentum, slots, device = self.config.momentum, batch.slots, batch.slots[0].master.device
        mix, apply = (_mix_compiled, _apply_compiled) if compiled else (_mix, _apply)
        of_gradient, of_momentum = (1 - momentum, momentum) if self.config.nesterov else (0.0, 1.0)
        numbers = torch.tensor([gradient_factor, momentum, 1 - momentum, of_gradient, of_momentum], device=device)
        sizes = [slot.master.numel() for slot in slots]
        flat = torch.empty(sum(sizes), dtype=torch.bfloat16 if device.type == "cuda" else torch.float32, device=device)
        for slot, mixed in zip(slots, flat.split(sizes), strict=True):
            mix(slot.gradient.view(-1), slot.state["momentum"].view(-1), mixed, numbers)
        if batch.owners is None:
            updates = list(self._orthogonal(flat, batch.shape).split(sizes))
        else:
            pieces = [piece.view(slot.master.shape) for slot, piece in zip(slots, flat.split(sizes), strict=True)]
            wholes = batch.owners.collect(pieces)
            updates = batch.owners.hand_back(self._orthogonal(wholes.view(-1), batch.shape).view_as(wholes))
        for slot, update in zip(slots, updates, strict=True):
            lr = slot.lr * lr_factor
            numbers = torch.tensor([lr * self._scale(batch.shape), lr * slot.weight_decay], device=device)
            copy = None if slot.copy is None else slot.copy.view(-1)
            apply(slot.master.view(-1), update.reshape(-1), copy, numbers, self.config.cautious)

    def _orthogonal(self, flat: Tensor, shape: tuple[int, int]) -> Tensor:
        """Matrices of A x B one behind another, made orthogonal."""
        return orthogonalized(flat.view(flat.numel() // math.prod(shape), *shape), self._steps).reshape(-1)

    def _scale(self, shape: tuple[int, int]) -> float:
        """What an orthogonal A x B matrix, whose root mean square is 1 / sqrt(max(A, B)), is multiplied by."""
        rows, columns = shape
        return 0.2 * math.sqrt(max(shape)) if self.config.scale == "adamw" else math.sqrt(max(1.0, rows / columns))


def _spans(slots: list[Slot]) -> dict[str, list[Span]]:
    """Of each sharded matrix by name, which piece of it each process holds."""
    by_mesh: dict[DeviceMesh, dict[str, DTensor]] = {}
    for slot in slots:
        if isinstance(slot.parameter, DTensor):
            by_mesh.setdefault(slot.parameter.device_mesh, {})[slot.name] = slot.parameter
    return {
        name: spans
        for parameters in by_mesh.values()
        for name, spans in zip(parameters, spans_of(list(parameters.values())), strict=True)
    }


def _runs(slots: list[Slot]) -> list[list[Slot]]:
    """The parameters in runs of at most so many elements as are in work at once, at least one in each."""
    found: list[list[Slot]] = [[]]
    for slot in slots:
        if found[-1] and sum(s.parameter.numel() for s in [*found[-1], slot]) > _BATCH_ELEMENTS:
            found.append([])
        found[-1].append(slot)
    return found


def _mix(gradient: Tensor, momentum: Tensor, mixed: Tensor, numbers: Tensor) -> None:
    """Moves the momentum to the gradient, and writes what is to be made orthogonal."""
    gradient_factor, beta, rest, of_gradient, of_momentum = numbers.unbind()
    g = gradient * gradient_factor
    m = beta * momentum + rest * g
    momentum.copy_(m)
    mixed.copy_(of_gradient * g + of_momentum * m)


def _apply(master: Tensor, update: Tensor, copy: Tensor | None, numbers: Tensor, cautious: bool) -> None:
    rate, decay = numbers.unbind()
    shrink = torch.where(update * master > 0, decay, 0.0) if cautious else decay
    w = master * (1 - shrink) - rate * update
    master.copy_(w)
    if copy is not None:
        copy.copy_(w)


_mix_compiled = compile_lazily(_mix)
_apply_compiled = compile_lazily(_apply)
