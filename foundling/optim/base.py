"""What an optimizer's part is: its config with groups of parameters, what a rule sees of a parameter, and a rule.

A rule (adamw.py, ...) says how accumulated gradients change masters; `optimizer.py` holds both. Sharded parameters
(DTensor) are treated shard by shard: a rule works on what is local, and says what it must know of the other shards
(`sum_over_shards`).
"""

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Placement

from foundling.core.config import PartConfig, Strict

Matrices = Mapping[str, int | None]
"""Name patterns of the matrices that lead from hidden states to hidden states, each with the rows of one attention head
where its rows are heads one below another; None: its rows are no heads."""


class Group(Strict):
    """Settings for the parameters whose name matches a pattern."""

    match: str
    """Name of the parameters, in which `*` stands for anything, as in `embedding.*`; it must match at least one that
    the groups before leave something to set."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of these parameters; None: the optimizer's."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Weight decay of these parameters; None: the optimizer's."""
    hidden: bool | None = None
    """Whether these matrices count as leading from hidden states to hidden states, for an optimizer that treats such
    matrices in its own way (muon); None: as the model says."""

    @model_validator(mode="after")
    def _sets_something(self) -> Self:
        if self.lr is None and self.weight_decay is None and self.hidden is None:
            raise ValueError("a group must set lr, weight_decay or hidden; got its match alone")
        return self


class OptimizerConfig(PartConfig):
    """What every optimizer has."""

    knows_matrices: ClassVar[bool] = False
    """Whether the rule treats matrices between hidden states in its own way."""

    takes_factors: ClassVar[bool] = True
    """Whether its steps have the size of their rate, so that a model's multiples of rates hold for it."""

    lr: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate; None: the model's own, derived from its depth and width. What pretraining from initial values
    takes at a multiple of it (a decoder's embedding: 8 times), at any rate, is told; a group says otherwise."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled weight decay of matrices; vectors (norms, biases) have none unless a group says so."""
    groups: tuple[Group, ...] = ()
    """Other settings by name pattern; of each setting, the first match that has it counts."""

    @model_validator(mode="after")
    def _no_setting_is_idle(self) -> Self:
        if not self.knows_matrices and any(group.hidden is not None for group in self.groups):
            raise ValueError(f"groups.hidden means nothing to {self.kind}, which treats all matrices alike")
        return self

    def build(self) -> "Rule":
        raise NotImplementedError

    def default_lr(self, adamw_lr: float, width: int) -> float:
        """The peak rate for a model of this width that AdamW would train at `adamw_lr`."""
        return adamw_lr

    def with_rates(self, adamw_lr: float, width: int) -> Self:
        """Itself with the rates that it leaves open."""
        lr = rounded(self.default_lr(adamw_lr, width)) if self.lr is None else self.lr
        return self.model_copy(update={"lr": lr})

    def other_rates(self, lr: float, factors: Mapping[str, float]) -> dict[str, float]:
        """The peak rates of what learns at a multiple, by name pattern; a group's own rate stands instead."""
        found = {}
        for pattern, factor in factors.items():
            own = (g.lr for g in self.groups if g.lr is not None and fnmatch.fnmatch(pattern, g.match))
            found[pattern] = next(own, rounded(factor * self.lr_of(False, lr)))
        return found

    def lr_of(self, hidden: bool, lr: float) -> float:
        """The rate of a parameter that no group gives one. hidden: it is a matrix between hidden states."""
        return lr


def rounded(lr: float) -> float:
    """A derived rate, to two digits."""
    return float(f"{lr:.2g}")


@dataclass
class Slot:
    """One parameter's local shard as a rule sees it. All tensors have the shard's shape."""

    name: str
    parameter: nn.Parameter
    master: Tensor
    """fp32 weights."""
    gradient: Tensor
    """fp32 accumulated gradient of this step."""
    copy: Tensor | None
    """The parameter itself where it is a lower-precision copy, else None."""
    lr: float
    weight_decay: float
    hidden: bool = False
    """Whether it is a matrix that leads from hidden states to hidden states."""
    head_rows: int | None = None
    """Rows of one attention head, where its rows are heads."""
    is_table: bool = False
    """Whether it has far more rows than a step reads. A rule may leave a row without gradient as it is, its state too
    (Adam's lazy form), so that a step costs what it reads."""
    read: list[Tensor] | None = field(default_factory=list)
    """Rows that sparse gradients were added to since the accumulator was cleared, int64; None: a dense one came."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """What the rule remembers, fp32."""
    since: int = 0
    """Steps of the run before it began to learn: what the rule remembers of it is so much younger than the run."""

    def rows(self) -> Tensor:
        """Rows of the accumulated gradient that are not zero, int64, rising."""
        if self.read is None:
            return self.gradient.ne(0).any(1).nonzero().view(-1)
        read = torch.cat(self.read or [self.gradient.new_empty(0, dtype=torch.int64)]).unique()
        return read[self.gradient[read].ne(0).any(1)]

    def clear(self) -> None:
        """Forgets the accumulated gradient."""
        if self.read:
            for rows in self.read:
                self.gradient.index_fill_(0, rows, 0.0)
        elif self.read is None or not self.is_table:
            self.gradient.zero_()
        self.read = []


class Rule(ABC):
    """How gradients change masters."""

    @abstractmethod
    def init(self, slot: Slot) -> dict[str, Tensor]:
        """The state of a parameter before the first step. Of another shape than a sharded parameter's shard, it is a
        DTensor, so that a checkpoint knows which piece it is."""

    def prepare(self, slots: list[Slot]) -> None:  # noqa: B027 - few rules have anything to prepare
        """Called once, with all parameters; every process calls it."""

    @abstractmethod
    def step(self, slots: list[Slot], step: int, lr_factor: float, gradient_factor: float, compiled: bool) -> None:
        """One update of all masters and copies in place.

        step: 1 at the first. lr_factor: what the schedule multiplies each rate by. gradient_factor: what clipping
        multiplies gradients by.
        """


def local(tensor: Tensor) -> Tensor:
    """The shard of a DTensor that lies here, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sharded_dim(placement: Placement) -> int | None:
    """The dimension that an axis of processes shares a tensor along; None: each of them has it whole."""
    return getattr(placement, "dim", None)  # of Shard, and of the strided one where two axes share one dimension


def sum_over_shards(sums: Sequence[tuple[Tensor, nn.Parameter, tuple[int, ...]]]) -> None:
    """Adds up what each process knows of its shard, in place: one all-reduce for each axis of processes.

    sums: of each tensor the parameter that it was summed from, and over which of its dimensions; nothing is done where
    the parameter is not sharded along these. All tensors have one type.
    """
    by_group: dict[Any, list[Tensor]] = {}
    for tensor, parameter, dims in sums:
        if isinstance(parameter, DTensor):
            for axis, placement in enumerate(parameter.placements):
                if sharded_dim(placement) in dims:
                    by_group.setdefault(parameter.device_mesh.get_group(axis), []).append(tensor)
    for group, tensors in by_group.items():
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat, group=group)
        for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


def every_dim(slot: Slot) -> tuple[int, ...]:
    """All dimensions of a parameter."""
    return tuple(range(slot.parameter.ndim))


def sum_of_squares(tensor: Tensor) -> Tensor:
    """Sum of squares, fp64 scalar. Torch's norm of 3M fp32 values is off by 6e-5; pieces of 4,096 summed in fp64 are
    not, and cost the same."""
    flat = tensor.reshape(-1)
    whole = flat.numel() // 4096 * 4096
    pieces = torch.linalg.vector_norm(flat[:whole].view(-1, 4096), dim=1)
    rest = torch.linalg.vector_norm(flat[whole:])
    return pieces.double().square().sum() + rest.double().square()
