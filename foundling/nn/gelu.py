"""GELU in its exact form, x P(X <= x) for a standard normal X (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2),
that keeps its slope for the backward pass.

Value and slope need the same exponential, and the slope is all that the backward pass needs: for 2.4M values in bf16
1.6 ms forward (1.2 ms without the slope) and 0.2 ms backward (2.3 ms), on one core. It is one opaque operator, because
a compiler that sees through it would recompute the slope from x.
"""

import math

import torch
from torch import Tensor

from foundling.optim.compile_lazily import compile_lazily

# erfc(y) = t (a1 + t (a2 + ...)) exp(-y^2), t = 1 / (1 + p y): Abramowitz & Stegun 1964, 7.1.26; error below 1.5e-7.
_P = 0.3275911
_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def gelu(x: Tensor) -> Tensor:
    """x P(X <= x), elementwise, to 5e-7 of x's size in fp32; differentiable, not twice."""
    if torch.is_grad_enabled() and x.requires_grad:
        out: Tensor = _forward(x)[0]
        return out
    return torch.nn.functional.gelu(x.float()).to(x.dtype)


@compile_lazily
def _with_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x.float()
    t = 1 / (1 + _P * math.sqrt(0.5) * y.abs())
    e = torch.exp(-0.5 * y * y)
    tail = 0.5 * t * (_A[0] + t * (_A[1] + t * (_A[2] + t * (_A[3] + t * _A[4])))) * e
    below = torch.where(y > 0, 1 - tail, tail)
    return (y * below).to(x.dtype), (below + y * e * math.sqrt(0.5 / math.pi)).to(x.dtype)


@torch.library.custom_op("foundling::gelu", mutates_args=())
def _forward(x: Tensor) -> tuple[Tensor, Tensor]:
    return _with_slope(x)


@_forward.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _autograd(ctx, grad, _slope):  # type: ignore[no-untyped-def]
    (slope,) = ctx.saved_tensors
    return (grad.float() * slope.float()).to(grad.dtype)


_forward.register_autograd(_autograd, setup_context=_setup_context)
