"""The optimizer's frame: fp32 masters and state, lower-precision copies, one accumulator. Knows parameters, no models.

A parameter in bf16 is a copy of its fp32 master, which lives here; a parameter in fp32 is its own master. That holds
of what is not trained as well: a model computes in one type, and what is written of it is what it began with. Gradients
are added to fp32 accumulators as soon as autograd makes them, so a step over any number of micro-batches sums in fp32.
A rule (adamw.py, ...) says how accumulated gradients change masters. Sharded parameters (DTensor) are treated shard
by shard: a rule works on what is local, and says what it must know of the other shards (`sum_over_shards`).
"""

import fnmatch
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Placement

from foundling.core.config import PartConfig, Strict
from foundling.core.errors import UserError
from foundling.optim.averages.base import Average

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


def sum_of_squares(tensor: Tensor) -> Tensor:
    """Sum of squares, fp64 scalar. Torch's norm of 3M fp32 values is off by 6e-5; pieces of 4,096 summed in fp64 are
    not, and cost the same."""
    flat = tensor.reshape(-1)
    whole = flat.numel() // 4096 * 4096
    pieces = torch.linalg.vector_norm(flat[:whole].view(-1, 4096), dim=1)
    rest = torch.linalg.vector_norm(flat[whole:])
    return pieces.double().square().sum() + rest.double().square()


class Optimizer:
    """Masters of a model's parameters, accumulators and state of those that are trained, and a rule that steps them."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        config: OptimizerConfig,
        lr: float,
        compiled: bool,
        *,
        matrices: Matrices | None = None,
        tables: Collection[str] = (),
        lr_factors: Mapping[str, float] | None = None,
        average: Average | None = None,
    ) -> None:
        """parameters: named, in fp32; masters are taken from them now, before `make_copies`. lr: the peak rate.

        matrices: those that lead from hidden states to hidden states; None: every matrix does. tables: names of those
        with far more rows than a step reads. lr_factors: what the rate of parameters to which no group gives one is
        multiplied by, by name pattern. average: of the masters, kept beside them.
        """
        self.rule = config.build()
        self.average = average
        self.compiled = compiled
        self.steps = 0
        named = list(parameters)
        trainable = [(name, p) for name, p in named if p.requires_grad]
        if not trainable:
            raise UserError("at least one parameter must be trainable", got="none")
        _no_group_is_idle(config.groups, [name for name, _ in trainable])
        matrices = {"*": None} if matrices is None else matrices
        self.slots = [self._slot(name, p, config, lr, matrices, lr_factors or {}) for name, p in trainable]
        self.rule.prepare(self.slots)
        self._frozen = {name: p for name, p in named if not p.requires_grad}
        self._frozen_masters: dict[str, Tensor] = {}
        self._averages = [torch.zeros_like(slot.master) for slot in self.slots] if average is not None else []
        for slot in self.slots:
            slot.is_table = slot.name in tables
            if not isinstance(slot.parameter, DTensor):
                slot.parameter.register_post_accumulate_grad_hook(self._collector(slot))

    def _slot(
        self,
        name: str,
        parameter: nn.Parameter,
        config: OptimizerConfig,
        lr: float,
        matrices: Matrices,
        lr_factors: Mapping[str, float],
    ) -> Slot:
        groups = [group for group in config.groups if fnmatch.fnmatch(name, group.match)]
        own_lr = next((group.lr for group in groups if group.lr is not None), None)
        own_decay = next((group.weight_decay for group in groups if group.weight_decay is not None), None)
        own_hidden = next((group.hidden for group in groups if group.hidden is not None), None)
        decay = config.weight_decay if parameter.ndim >= 2 else 0.0
        match = next((pattern for pattern in matrices if fnmatch.fnmatch(name, pattern)), None)
        hidden = (match is not None and parameter.ndim == 2) if own_hidden is None else own_hidden
        if hidden and parameter.ndim != 2:
            raise UserError("only a matrix can be hidden: true", got=f"{name} of shape {tuple(parameter.shape)}")
        factor = next((x for pattern, x in lr_factors.items() if fnmatch.fnmatch(name, pattern)), 1.0)
        master = local(parameter.detach())
        assert master.dtype == torch.float32, (name, master.dtype)
        slot = Slot(
            name=name,
            parameter=parameter,
            master=master,
            gradient=torch.zeros_like(master),
            copy=None,
            lr=config.lr_of(hidden, lr) * factor if own_lr is None else own_lr,
            weight_decay=decay if own_decay is None else own_decay,
            hidden=hidden,
            head_rows=None if match is None else matrices[match],
        )
        slot.state = self.rule.init(slot)
        return slot

    @staticmethod
    def _collector(slot: Slot) -> Any:
        def add(parameter: Tensor) -> None:
            gradient = parameter.grad
            assert gradient is not None
            if gradient.is_sparse:  # some rows of an embedding, one as often as it was read
                rows = gradient._indices()[0]
                slot.gradient.index_add_(0, rows, gradient._values().to(slot.gradient.dtype))
                if slot.read is not None:
                    slot.read.append(rows)
            else:
                slot.gradient += local(gradient)
                slot.read = None
            parameter.grad = None

        return add

    def collect(self) -> None:
        """Adds what FSDP2 left in sharded gradients; call it after each backward pass."""
        for slot in self.slots:
            if isinstance(slot.parameter, DTensor) and slot.parameter.grad is not None:
                slot.gradient += local(slot.parameter.grad)
                slot.parameter.grad, slot.read = None, None

    def make_copies(self, dtype: torch.dtype) -> None:
        """Turns parameters into copies in `dtype` of their masters. Sharded ones are cast when they are gathered."""
        for slot in self.slots:
            if not isinstance(slot.parameter, DTensor):
                slot.parameter.data = slot.master.to(dtype)
                slot.copy = slot.parameter.data
        for name, parameter in self._frozen.items():
            if not isinstance(parameter, DTensor):
                # In host memory, since nothing but the model's folder is made of them.
                self._frozen_masters[name] = parameter.detach().cpu()
                parameter.data = parameter.detach().to(dtype)

    def whole_masters(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter's fp32 weights by name, whole, those that are not trained too; every process calls it."""
        masters = {slot.name: (slot.parameter, slot.master) for slot in self.slots}
        masters |= {name: (p, self._frozen_masters.get(name, p)) for name, p in self._frozen.items()}
        for name, (parameter, master) in masters.items():
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else master
            yield name, whole.detach()

    def clip_values(self, limit: float) -> None:
        """Brings every entry of the accumulated gradient into [-limit, limit]; what is not finite stays, to be told."""
        for slot in self.slots:
            clipped = slot.gradient.clamp(-limit, limit)
            slot.gradient.copy_(torch.where(slot.gradient.isfinite(), clipped, slot.gradient))

    def gradient_norm(self) -> float:
        """Euclidean norm of the whole accumulated gradient, over all ranks. NaN or infinite if any entry is."""
        squares = [sum_of_squares(s.gradient[s.rows()] if s.is_table or s.read else s.gradient) for s in self.slots]
        sum_over_shards([(s, slot.parameter, every_dim(slot)) for s, slot in zip(squares, self.slots, strict=True)])
        total = torch.stack(squares).sum()
        return math.sqrt(total.item()) if torch.isfinite(total) else total.item()

    def step(self, lr_factor: float, gradient_factor: float = 1.0) -> None:
        """Applies the rule and clears the accumulators."""
        self.steps += 1
        with torch.no_grad():
            self.rule.step(self.slots, self.steps, lr_factor, gradient_factor, self.compiled)
            if self.average is not None and (share := self.average.share(self.steps)):
                torch._foreach_lerp_(self._averages, [slot.master for slot in self.slots], share)
        self.zero()

    def zero(self) -> None:
        """Forgets the accumulated gradient."""
        for slot in self.slots:
            slot.clear()

    def refresh_copies(self) -> None:
        """Makes every copy its master again, after masters were loaded."""
        for slot in self.slots:
            if slot.copy is not None:
                slot.copy.copy_(slot.master)

    @property
    def has_average(self) -> bool:
        """Whether there is an average and a step has counted in it."""
        return self.average is not None and self.steps >= self.average.first_step

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Masters and copies are the averages meanwhile, where there are any; afterwards they are as before, to the
        bit. Takes the memory of the largest parameter."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        if not self.has_average:
            return
        with torch.no_grad():
            for slot, average in zip(self.slots, self._averages, strict=True):
                master = slot.master.clone()
                slot.master.copy_(average)
                average.copy_(master)
        self.refresh_copies()

    def tensors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """All state by name (`master/NAME`, `STATE/NAME`, `average/NAME`): the live local shard, and a tensor that is
        sharded as it is."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for slot in self.slots:
            found[f"master/{slot.name}"] = (slot.master, slot.parameter)
            for key, value in slot.state.items():
                found[f"{key}/{slot.name}"] = (local(value), value if isinstance(value, DTensor) else slot.parameter)
        for slot, average in zip(self.slots, self._averages, strict=False):
            found[f"average/{slot.name}"] = (average, slot.parameter)
        return found


def every_dim(slot: Slot) -> tuple[int, ...]:
    """All dimensions of a parameter."""
    return tuple(range(slot.parameter.ndim))


def _no_group_is_idle(groups: tuple[Group, ...], names: list[str]) -> None:
    """UserError: a pattern matches nothing, or groups before it set all that it would."""
    set_by: dict[tuple[str, str], int] = {}
    for number, group in enumerate(groups):
        matched = fnmatch.filter(names, group.match)
        if not matched:
            raise UserError(
                "every optimizer.groups pattern must match a parameter",
                got=f"{group.match!r}, which matches none",
                do=f"names look like {', '.join(names[:4])}",
            )
        given = [key for key in ("lr", "weight_decay", "hidden") if getattr(group, key) is not None]
        found = {set_by.setdefault((name, key), number) for name in matched for key in given}
        if number not in found:
            before = " and ".join(repr(groups[n].match) for n in sorted(found))
            raise UserError(
                "every optimizer.groups pattern must set something, and of each setting the first match counts",
                got=f"{group.match!r}, for which {before} before it set all",
                do="put it before them, or take it out",
            )
