"""The optimizer's frame: fp32 masters and state, lower-precision copies, one accumulator. Knows parameters, no models.

A parameter in bf16 is a copy of its fp32 master, which lives here; a parameter in fp32 is its own master. That holds
of what is not trained as well: a model computes in one type, and what is written of it is what it began with. Gradients
are added to fp32 accumulators as soon as autograd makes them, so a step over any number of micro-batches sums in fp32.
"""

import fnmatch
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from foundling.core.errors import UserError
from foundling.optim.averages.base import Average
from foundling.optim.base import (
    Group,
    Matrices,
    OptimizerConfig,
    Slot,
    every_dim,
    local,
    sum_of_squares,
    sum_over_shards,
)


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
