"""AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2).

State and arithmetic are fp32 whatever the copies' type: in bf16, beta2 = 0.999 rounds to 1 and the second moment never
decays. One kernel reads gradient, moments and master and writes moments, master and the bf16 copy: in C++ on CPU
(adamw.cpp), which costs no compilation by torch, and compiled by torch elsewhere. Operation by operation an update of
20M weights takes 40 times as long. Rows of an embedding that were never read have no moments: the kernel lets them
decay and nothing else, to the same bits. Of a table only the rows with a gradient are stepped, and decay: Adam's lazy
form.
"""

import ctypes
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from foundling.core.native import native_kernel
from foundling.optim.base import OptimizerConfig, Rule, Slot
from foundling.optim.compile_lazily import compile_lazily

Beta = Annotated[float, Field(ge=0, lt=1)]


class Config(OptimizerConfig):
    kind: str = "adamw"
    """Name of the part."""
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """Decay of the first and second moment per step."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""

    def build(self) -> Rule:
        return AdamW(self.betas, self.eps)


class AdamW(Rule):
    def __init__(self, betas: tuple[float, float], eps: float, *, coupled: bool = False) -> None:
        """coupled: weight decay is a part of the gradient, as in Adam; otherwise the weights shrink by it."""
        self.betas, self.eps, self.coupled = betas, eps, coupled
        self._read: dict[str, Tensor] = {}
        """Of embeddings, the rows that ever had a gradient, bool [rows]: the others have no moments, and only decay."""

    def init(self, slot: Slot) -> dict[str, Tensor]:
        return {"first_moment": torch.zeros_like(slot.master), "second_moment": torch.zeros_like(slot.master)}

    def step(self, slots: list[Slot], step: int, lr_factor: float, gradient_factor: float, compiled: bool) -> None:
        (beta1, beta2), eps = self.betas, self.eps
        for slot in slots:
            age = max(1, step - slot.since)
            unbias1, unbias2 = 1 - beta1**age, 1 - beta2**age
            lr = slot.lr * lr_factor
            pull, shrink = (slot.weight_decay, 0.0) if self.coupled else (0.0, slot.weight_decay)
            # A tensor: as plain floats each new value would compile the kernel again. 1 - beta is taken here, in fp64:
            # of beta2 = 0.999 rounded to fp32 it would be off by 5e-5 of itself.
            numbers = torch.tensor(
                [
                    gradient_factor, pull, beta1, 1 - beta1, beta2, 1 - beta2, eps,
                    lr / unbias1, unbias2**-0.5, 1 - lr * shrink,
                ],
                device=slot.master.device,
            )  # fmt: skip
            update = _update_for(slot, compiled and not slot.is_table)
            live = [slot.master, slot.gradient, slot.state["first_moment"], slot.state["second_moment"]]
            live += [] if slot.copy is None else [slot.copy]
            if not slot.is_table:
                read = self._ever_read(slot)
                _apply(update if read is None else partial(_update_rows_natively, read=read), live, numbers)
                continue
            rows = slot.rows()
            parts = [tensor.index_select(0, rows) for tensor in live]
            _apply(update, parts, numbers)
            for tensor, part in zip(live, parts, strict=True):
                tensor.index_copy_(0, rows, part)

    def _ever_read(self, slot: Slot) -> Tensor | None:
        """None: all rows may have had a gradient, or there is no kernel that passes over some."""
        if not slot.read or self.coupled or _update_for(slot, False) is not _update_natively:
            self._read.pop(slot.name, None)
            return None
        if slot.name not in self._read:
            first, second = slot.state["first_moment"], slot.state["second_moment"]
            self._read[slot.name] = (first.ne(0) | second.ne(0)).any(1)
        self._read[slot.name][torch.cat(slot.read)] = True
        return self._read[slot.name]


def _apply(update: Callable[..., None], tensors: list[Tensor], numbers: Tensor) -> None:
    """tensors: master, gradient, moments, and the copy where there is one."""
    flat = [tensor.view(-1) for tensor in tensors]
    update(*flat[:4], flat[4] if len(flat) > 4 else None, numbers)


def _update_for(slot: Slot, compiled: bool) -> Callable[..., None]:
    on_cpu = slot.master.device.type == "cpu" and (slot.copy is None or slot.copy.dtype == torch.bfloat16)
    if on_cpu and _native() is not None:
        return _update_natively
    return _update_compiled if compiled else _update


def _update(
    master: Tensor, gradient: Tensor, first: Tensor, second: Tensor, copy: Tensor | None, numbers: Tensor
) -> None:
    gradient_factor, pull, beta1, rest1, beta2, rest2, eps, rate, root_unbias, keep = numbers.unbind()
    g = gradient * gradient_factor + pull * master
    m = beta1 * first + rest1 * g
    v = beta2 * second + rest2 * g * g
    w = master * keep - rate * m / (v.sqrt() * root_unbias + eps)
    first.copy_(m)
    second.copy_(v)
    master.copy_(w)
    if copy is not None:
        copy.copy_(w)


_update_compiled = compile_lazily(_update)


_ARGTYPES: dict[str, list[Any]] = {
    "adamw": [ctypes.c_void_p] * 5 + [ctypes.c_int64, ctypes.c_void_p],
    "adamw_rows": [ctypes.c_void_p] * 6 + [ctypes.c_int64] * 2 + [ctypes.c_void_p],
}


@cache
def _native(name: str = "adamw") -> Callable[..., Any] | None:
    return native_kernel(Path(__file__).with_suffix(".cpp"), name, _ARGTYPES[name])


def _update_natively(
    master: Tensor, gradient: Tensor, first: Tensor, second: Tensor, copy: Tensor | None, numbers: Tensor
) -> None:
    kernel = _native()
    assert kernel is not None
    tensors = (master, gradient, first, second)
    kernel(
        *(t.data_ptr() for t in tensors), None if copy is None else copy.data_ptr(), master.numel(), numbers.data_ptr()
    )


def _update_rows_natively(
    master: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    copy: Tensor | None,
    numbers: Tensor,
    *,
    read: Tensor,
) -> None:
    kernel = _native("adamw_rows")
    assert kernel is not None
    tensors = (master, gradient, first, second)
    kernel(
        *(t.data_ptr() for t in tensors), None if copy is None else copy.data_ptr(), read.data_ptr(), len(read),
        master.numel() // len(read), numbers.data_ptr(),
    )  # fmt: skip
