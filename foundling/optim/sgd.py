"""Stochastic gradient descent with momentum (Polyak 1964), also Nesterov's (Sutskever et al. 2013): torch's `SGD`."""

from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from foundling.optim.base import OptimizerConfig, Rule, Slot
from foundling.optim.compile_lazily import compile_lazily


class Config(OptimizerConfig):
    takes_factors: ClassVar[bool] = False

    kind: str = "sgd"
    """Name of the part."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty of matrices: so many times the weights are added to the gradient; vectors (norms, biases) have none
    unless a group says so."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """What the running sum of gradients keeps of itself per step; 0: none is kept."""
    nesterov: bool = False
    """Whether the step looks one momentum ahead."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        return self

    def build(self) -> Rule:
        return Sgd(self)

    def default_lr(self, adamw_lr: float, width: int) -> float:
        return 40 * adamw_lr  # about 0.1, as is usual: a step has the size of its gradient, which clipping bounds by 1


class Sgd(Rule):
    def __init__(self, config: Config) -> None:
        self.config = config

    def init(self, slot: Slot) -> dict[str, Tensor]:
        return {"momentum": torch.zeros_like(slot.master)} if self.config.momentum else {}

    def step(self, slots: list[Slot], step: int, lr_factor: float, gradient_factor: float, compiled: bool) -> None:
        kernel = _update_compiled if compiled else _update
        momentum = self.config.momentum
        # what the step takes of the gradient and of the new running sum
        of_gradient, of_sum = (1.0, momentum) if self.config.nesterov else (0.0, 1.0)
        for slot in slots:
            numbers = torch.tensor(
                [gradient_factor, slot.weight_decay, momentum, of_gradient, of_sum, slot.lr * lr_factor],
                device=slot.master.device,
            )
            copy = None if slot.copy is None else slot.copy.view(-1)
            total = slot.state["momentum"].view(-1) if momentum else None
            kernel(slot.master.view(-1), slot.gradient.view(-1), total, copy, numbers)


def _update(master: Tensor, gradient: Tensor, total: Tensor | None, copy: Tensor | None, numbers: Tensor) -> None:
    gradient_factor, pull, momentum, of_gradient, of_sum, rate = numbers.unbind()
    g = gradient * gradient_factor + pull * master
    if total is not None:
        t = momentum * total + g
        total.copy_(t)
        g = of_gradient * g + of_sum * t
    w = master - rate * g
    master.copy_(w)
    if copy is not None:
        copy.copy_(w)


_update_compiled = compile_lazily(_update)
