"""The optimizer's frame: fp32 masters and state, lower-precision copies, one accumulator. Knows parameters, no models.

A parameter in bf16 is a copy of its fp32 master, which lives here; a parameter in fp32 is its own master. Gradients
are added to fp32 accumulators as soon as autograd makes them, so a step over any number of micro-batches sums in fp32.
A rule (adamw.py, ...) says how accumulated gradients change masters. Sharded parameters (DTensor) are treated shard
by shard: every rule here works on what is local.
"""

import fnmatch
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from foundling.core.config import PartConfig, Strict
from foundling.core.errors import UserError


class Group(Strict):
    """Settings for the parameters whose name matches a pattern."""

    match: str
    """Name pattern with `*`, as in `embedding.*`; it must match at least one parameter."""
    lr: float | None = None
    """Learning rate of these parameters; None: the optimizer's."""
    weight_decay: float | None = None
    """Weight decay of these parameters; None: the optimizer's."""


class OptimizerConfig(PartConfig):
    """What every optimizer has."""

    lr: float | None = None
    """Peak learning rate; None: the model's own, derived from its depth and width."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices; vectors (norms, biases) have none unless a group says so."""
    groups: tuple[Group, ...] = ()
    """Other settings by name pattern; the first match counts."""

    def build(self) -> "Rule":
        raise NotImplementedError


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
    state: dict[str, Tensor] = field(default_factory=dict)
    """What the rule remembers, fp32."""


class Rule(ABC):
    """How gradients change masters."""

    @abstractmethod
    def init(self, slot: Slot) -> dict[str, Tensor]:
        """The state of a parameter before the first step."""

    @abstractmethod
    def step(self, slots: list[Slot], step: int, lr_factor: float, gradient_factor: float, compiled: bool) -> None:
        """One update of all masters and copies in place.

        step: 1 at the first. lr_factor: what the schedule multiplies each rate by. gradient_factor: what clipping
        multiplies gradients by.
        """


def local(tensor: Tensor) -> Tensor:
    """The shard of a DTensor that lies here, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sum_of_squares(tensor: Tensor) -> Tensor:
    """Sum of squares, fp64 scalar. Torch's norm of 3M fp32 values is off by 6e-5; pieces of 4,096 summed in fp64 are
    not, and cost the same."""
    flat = tensor.reshape(-1)
    whole = flat.numel() // 4096 * 4096
    pieces = torch.linalg.vector_norm(flat[:whole].view(-1, 4096), dim=1)
    rest = torch.linalg.vector_norm(flat[whole:])
    return pieces.double().square().sum() + rest.double().square()


class Optimizer:
    """Masters, accumulators and state of a model's trainable parameters, and a rule that steps them."""

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, lr: float, compiled: bool
    ) -> None:
        """parameters: named, in fp32; masters are taken from them now, before `make_copies`. lr: the peak rate."""
        self.rule = config.build()
        self.compiled = compiled
        self.steps = 0
        trainable = [(name, p) for name, p in parameters if p.requires_grad]
        if not trainable:
            raise UserError("at least one parameter must be trainable", got="none")
        _every_pattern_matches(config.groups, [name for name, _ in trainable])
        self.slots = [self._slot(name, p, config, lr) for name, p in trainable]
        for slot in self.slots:
            if not isinstance(slot.parameter, DTensor):
                slot.parameter.register_post_accumulate_grad_hook(self._collector(slot))

    def _slot(self, name: str, parameter: nn.Parameter, config: OptimizerConfig, lr: float) -> Slot:
        group = next((g for g in config.groups if fnmatch.fnmatch(name, g.match)), Group(match="*"))
        decay = config.weight_decay if parameter.ndim >= 2 else 0.0
        master = local(parameter.detach())
        assert master.dtype == torch.float32, (name, master.dtype)
        slot = Slot(
            name=name,
            parameter=parameter,
            master=master,
            gradient=torch.zeros_like(master),
            copy=None,
            lr=lr if group.lr is None else group.lr,
            weight_decay=decay if group.weight_decay is None else group.weight_decay,
        )
        slot.state = self.rule.init(slot)
        return slot

    @staticmethod
    def _collector(slot: Slot) -> Any:
        def add(parameter: Tensor) -> None:
            assert parameter.grad is not None
            slot.gradient += local(parameter.grad)
            parameter.grad = None

        return add

    def collect(self) -> None:
        """Adds what FSDP2 left in sharded gradients; call it after each backward pass."""
        for slot in self.slots:
            if isinstance(slot.parameter, DTensor) and slot.parameter.grad is not None:
                slot.gradient += local(slot.parameter.grad)
                slot.parameter.grad = None

    def make_copies(self, dtype: torch.dtype) -> None:
        """Turns parameters into copies in `dtype` of their masters. Sharded ones are cast when they are gathered."""
        for slot in self.slots:
            if not isinstance(slot.parameter, DTensor):
                slot.parameter.data = slot.master.to(dtype)
                slot.copy = slot.parameter.data

    def gradient_norm(self) -> float:
        """Euclidean norm of the whole accumulated gradient, over all ranks. NaN or infinite if any entry is."""
        squares = torch.stack([sum_of_squares(s.gradient) for s in self.slots])
        sharded = torch.tensor([isinstance(s.parameter, DTensor) for s in self.slots])
        total = squares[~sharded].sum()
        if sharded.any():
            for mesh_total in self._sharded_squares(squares, sharded):
                total = total + mesh_total
        return math.sqrt(total.item()) if torch.isfinite(total) else total.item()

    def _sharded_squares(self, squares: Tensor, sharded: Tensor) -> Iterable[Tensor]:
        for square, slot in zip(
            squares[sharded], (s for s in self.slots if isinstance(s.parameter, DTensor)), strict=True
        ):
            parameter = slot.parameter
            assert isinstance(parameter, DTensor)
            for axis, placement in enumerate(parameter.placements):
                if not placement.is_replicate():  # Shard, or the strided one of two axes on one dimension
                    torch.distributed.all_reduce(square, group=parameter.device_mesh.get_group(axis))
            yield square

    def step(self, lr_factor: float, gradient_factor: float = 1.0) -> None:
        """Applies the rule and clears the accumulators."""
        self.steps += 1
        with torch.no_grad():
            self.rule.step(self.slots, self.steps, lr_factor, gradient_factor, self.compiled)
        self.zero()

    def zero(self) -> None:
        """Forgets the accumulated gradient."""
        torch._foreach_zero_([s.gradient for s in self.slots])

    def refresh_copies(self) -> None:
        """Makes every copy its master again, after masters were loaded."""
        for slot in self.slots:
            if slot.copy is not None:
                slot.copy.copy_(slot.master)

    def tensors(self) -> dict[str, tuple[Tensor, nn.Parameter]]:
        """All state by name (`master/NAME`, `STATE/NAME`): the live local shard, and the parameter it is sharded as."""
        found = {}
        for slot in self.slots:
            found[f"master/{slot.name}"] = (slot.master, slot.parameter)
            found |= {f"{key}/{slot.name}": (value, slot.parameter) for key, value in slot.state.items()}
        return found


def _every_pattern_matches(groups: tuple[Group, ...], names: list[str]) -> None:
    for group in groups:
        if not fnmatch.filter(names, group.match):
            raise UserError(
                "every optimizer.groups pattern must match a parameter",
                got=f"{group.match!r}, which matches none",
                do=f"names look like {', '.join(names[:4])}",
            )
