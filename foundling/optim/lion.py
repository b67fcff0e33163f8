"""Lion: the sign of a mix of gradient and momentum (Chen et al. 2023, arXiv:2302.06675, algorithm 2).

Every weight moves by the whole rate at each step, so the rate is a fraction of AdamW's and the decay larger, that
their product stays (section 5).
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from foundling.optim.adamw import Beta
from foundling.optim.base import OptimizerConfig, Rule, Slot
from foundling.optim.compile_lazily import compile_lazily

_SHARE_OF_ADAMW = 0.2  # the paper: 3 to 10 times smaller


class Config(OptimizerConfig):
    kind: str = "lion"
    """Name of the part."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.5
    """Decoupled weight decay of matrices; vectors (norms, biases) have none unless a group says so. AdamW's 0.1 over
    what the rate is smaller by."""
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """What the mix takes of the momentum, the rest being gradient; and what the momentum keeps of itself per step."""

    def build(self) -> Rule:
        return Lion(self)

    def default_lr(self, adamw_lr: float, width: int) -> float:
        return _SHARE_OF_ADAMW * adamw_lr


class Lion(Rule):
    def __init__(self, config: Config) -> None:
        self.config = config

    def init(self, slot: Slot) -> dict[str, Tensor]:
        return {"momentum": torch.zeros_like(slot.master)}

    def step(self, slots: list[Slot], step: int, lr_factor: float, gradient_factor: float, compiled: bool) -> None:
        kernel = _update_compiled if compiled else _update
        beta1, beta2 = self.config.betas
        for slot in slots:
            lr = slot.lr * lr_factor
            numbers = torch.tensor(
                [gradient_factor, beta1, 1 - beta1, beta2, 1 - beta2, lr, 1 - lr * slot.weight_decay],
                device=slot.master.device,
            )
            copy = None if slot.copy is None else slot.copy.view(-1)
            kernel(slot.master.view(-1), slot.gradient.view(-1), slot.state["momentum"].view(-1), copy, numbers)


def _update(master: Tensor, gradient: Tensor, momentum: Tensor, copy: Tensor | None, numbers: Tensor) -> None:
    gradient_factor, beta1, rest1, beta2, rest2, rate, keep = numbers.unbind()
    g = gradient * gradient_factor
    w = master * keep - rate * (beta1 * momentum + rest1 * g).sign()
    momentum.copy_(beta2 * momentum + rest2 * g)
    master.copy_(w)
    if copy is not None:
        copy.copy_(w)


_update_compiled = compile_lazily(_update)
