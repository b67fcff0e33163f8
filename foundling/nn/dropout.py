"""Dropout (Srivastava et al. 2014, JMLR 15, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting").

It stands on hidden states alone. Attention weights are not dropped as in the original models: none of the kernels
holds them whole, and torch's fused attention falls to one that does where it is asked to drop some.

On CPU it is a kernel in C++ (dropout.cpp): torch draws there one number after another, which takes a third of the step
of a small model.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundling.core.native import native_kernel


def dropout(rate: float) -> nn.Module:
    """A layer that zeroes each value with this chance while its model trains, and scales up those that stay.

    Without a chance it is a layer that does nothing, so a model that drops nothing pays for nothing.
    """
    return Dropout(rate) if rate else nn.Identity()


def draws(module: nn.Module) -> bool:
    """Whether anything in a module draws random numbers while it trains."""
    return any(isinstance(part, nn.Dropout) for part in module.modules())


class Dropout(nn.Dropout):
    """What is dropped follows from torch's generator, one draw a call, whatever the number of threads."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self._has_kernel = _kernel(torch.float32) is not None

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self._has_kernel and x.device.type == "cpu" and x.dtype in _KERNELS):
            return super().forward(x)
        return _forward(x, torch.randint(2**62, ()), self.p)


_KERNELS = {torch.bfloat16: "dropout_bf16", torch.float32: "dropout_fp32"}


@cache
def _kernel(dtype: torch.dtype) -> Callable[..., Any] | None:
    argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int64, ctypes.c_uint64, ctypes.c_float]
    return native_kernel(Path(__file__).with_suffix(".cpp"), _KERNELS[dtype], argtypes)


@torch.library.custom_op("foundling::dropout", mutates_args=())
def _forward(x: Tensor, seed: Tensor, rate: float) -> Tensor:
    """seed: one int64. Its gradient is the same of the gradient."""
    kernel, x = _kernel(x.dtype), x.contiguous()
    assert kernel is not None, f"no kernel for {x.dtype}"
    assert x.numel() < 2**32, "places are counted in 32 bits"
    out = torch.empty_like(x)
    kernel(x.data_ptr(), out.data_ptr(), x.numel(), seed.item(), rate)
    return out


@_forward.register_fake
def _(x: Tensor, seed: Tensor, rate: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    _, seed, ctx.rate = inputs
    ctx.save_for_backward(seed)


def _autograd(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _forward(grad, *ctx.saved_tensors, ctx.rate), None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
