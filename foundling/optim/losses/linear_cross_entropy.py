"""Losses of a linear layer's logits, fused: logits of a chunk live in cache and die there.

Value and both gradients are made in the forward pass, chunk by chunk: a matrix product in the input's type, one
kernel in fp32 that turns the chunk's logits into their gradient in place, then two matrix products. So nothing is
computed twice and no more than `BUFFER_BYTES` of logits exist. The same idea with recomputation: Wijmans et al. 2024,
"Cut Your Losses" (arXiv:2411.09009).
"""

# Shapes: M = positions with a target, C = positions of a chunk, D = width, V = vocabulary.

import ctypes
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foundling.core.native import native_kernel
from foundling.optim.compile_lazily import compile_lazily
from foundling.optim.losses.base import PLAIN, Shape

BUFFER_BYTES = 64 * 2**20
"""Logits kept at once. Their weight gradient is one product, so fewer and larger buffers are faster."""
CHUNK_BYTES = 4 * 2**20
"""Logits turned into gradients at once: about the second-level cache of two cores."""


def linear_cross_entropy(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    targets_M: Tensor,
    scale: float,
    compiled: bool,
    bias_V: Tensor | None = None,
    shape: Shape = PLAIN,
) -> tuple[Tensor, Tensor]:
    """Sum over targets of -log softmax(hidden weight^T + bias)[target] x scale, a fp32 scalar, differentiable; and each
    target's loss, unscaled, fp32 [M], without gradient. With a shape the loss is another one: label smoothing, focal, a
    z-loss beside.

    hidden_MD, weight_VD and bias_V share a floating type; targets_M: int64. scale: usually 1 / targets of the whole
    step, so gradients of micro-batches add up to the whole batch's. compiled: whether the inner kernel is compiled.
    """
    found: tuple[Tensor, Tensor] = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_MD, weight_VD, bias_V, targets_M, scale, compiled, shape
    )
    return found


def linear_nll(hidden_MD: Tensor, weight_VD: Tensor, targets_M: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """-log softmax(hidden weight^T + bias)[target] of each position, fp32 [M], without gradients."""
    with torch.no_grad():
        step = max(1, BUFFER_BYTES // (weight_VD.shape[0] * 4))
        pieces = [
            F.cross_entropy(F.linear(h, weight_VD, bias_V).float(), t, reduction="none")
            for h, t in zip(hidden_MD.split(step), targets_M.split(step), strict=True)
        ]
        return torch.cat(pieces) if pieces else hidden_MD.new_zeros(0, dtype=torch.float32)


def _to_gradient_(logits_CV: Tensor, bias_V: Tensor | None, targets_C1: Tensor, scale: float) -> Tensor:
    """Logits to (softmax - one-hot) x scale in place; the losses of the chunk (unscaled), fp32 [C]."""
    x = logits_CV.float()
    if bias_V is not None:
        x = x + bias_V.float()
    top = x.amax(-1, keepdim=True)
    exp = (x - top).exp()
    total = exp.sum(-1, keepdim=True)
    losses_C1 = top + total.log() - x.gather(-1, targets_C1)
    hit = torch.arange(x.shape[-1], device=x.device)[None, :] == targets_C1
    logits_CV.copy_((exp / total - hit.to(x.dtype)) * scale)
    return losses_C1[:, 0]


def _to_shaped_gradient_(
    logits_CV: Tensor, bias_V: Tensor | None, targets_C1: Tensor, scale: float, shape_3: Tensor
) -> Tensor:
    """The same for other losses; shape_3: smoothing, gamma and z (a tensor, since torch compiles no power of a number
    that is not fixed).

    With q = log p of the target, the loss is f(q) = -(1 - p)^gamma q, whose gradient by a logit is f'(q) (hit - p);
    smoothing adds log Z less the mean logit, the z-loss log(Z)^2.
    """
    smoothing, gamma, z = shape_3.unbind()
    x = logits_CV.float()
    if bias_V is not None:
        x = x + bias_V.float()
    top = x.amax(-1, keepdim=True)
    exp = (x - top).exp()
    total = exp.sum(-1, keepdim=True)
    log_z = top + total.log()
    q = x.gather(-1, targets_C1) - log_z
    p = q.exp()
    rest = (1 - p).clamp_min(1e-12)
    focus = rest**gamma
    slope = focus - gamma * rest ** (gamma - 1) * p * q  # -f'(q)
    losses_C1 = -(1 - smoothing) * focus * q + smoothing * (log_z - x.mean(-1, keepdim=True)) + z * log_z.square()
    hit = (torch.arange(x.shape[-1], device=x.device)[None, :] == targets_C1).to(x.dtype)
    share = (1 - smoothing) * slope
    softmax = exp / total
    gradient = softmax * (share + smoothing + 2 * z * log_z) - hit * share - smoothing / x.shape[-1]
    logits_CV.copy_(gradient * scale)
    return losses_C1[:, 0]


_to_gradient_compiled = compile_lazily(_to_gradient_)
_to_shaped_gradient_compiled = compile_lazily(_to_shaped_gradient_)


@cache
def _native_cross_entropy(dtype: torch.dtype) -> Callable[..., Any] | None:
    """The kernel of `linear_cross_entropy.cpp` for logits of a type, where the machine has it."""
    names = {torch.bfloat16: "cross_entropy_bf16", torch.float32: "cross_entropy_fp32"}
    argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2 + [ctypes.c_float] * 4
    return native_kernel(Path(__file__).with_suffix(".cpp"), names[dtype], argtypes) if dtype in names else None


def _to_gradient_natively_(
    logits_CV: Tensor, bias_V: Tensor | None, targets_C1: Tensor, scale: float, shape: Shape
) -> Tensor:
    """Both in C++."""
    kernel = _native_cross_entropy(logits_CV.dtype)
    bias = None if bias_V is None else bias_V.to(logits_CV.dtype).contiguous()
    assert kernel is not None
    assert logits_CV.is_contiguous()
    assert targets_C1.is_contiguous()
    losses_C = torch.empty(logits_CV.shape[0], dtype=torch.float32)
    bias_at = None if bias is None else bias.data_ptr()
    where = (logits_CV.data_ptr(), bias_at, targets_C1.data_ptr(), losses_C.data_ptr())
    kernel(*where, *logits_CV.shape, scale, shape.smoothing, shape.gamma, shape.z)
    return losses_C


def _kernel(shape: Shape, compiled: bool, logits: Tensor) -> Callable[..., Tensor]:
    """What turns a chunk's logits into their gradient and gives its losses, given its bias, targets and scale."""
    if logits.device.type == "cpu" and _native_cross_entropy(logits.dtype) is not None:
        return partial(_to_gradient_natively_, shape=shape)
    if shape.is_plain:
        return _to_gradient_compiled if compiled else _to_gradient_
    shape_3 = torch.tensor([shape.smoothing, shape.gamma, shape.z], device=logits.device)
    return partial(_to_shaped_gradient_compiled if compiled else _to_shaped_gradient_, shape_3=shape_3)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_M: Tensor,
        scale: float,
        compiled: bool,
        shape: Shape,
    ) -> Any:
        kernel = _kernel(shape, compiled, hidden_MD)
        vocab_size, bytes_each = weight_VD.shape[0], hidden_MD.element_size()
        per_buffer = max(1, BUFFER_BYTES // (vocab_size * bytes_each))
        per_chunk = max(1, CHUNK_BYTES // (vocab_size * bytes_each))
        losses_M = torch.empty(hidden_MD.shape[0], dtype=torch.float32, device=hidden_MD.device)
        grad_hidden = torch.empty_like(hidden_MD)
        one_buffer = hidden_MD.shape[0] <= per_buffer
        grad_weight = None if one_buffer else torch.zeros_like(weight_VD, dtype=torch.float32)
        grad_bias = None if bias_V is None else torch.zeros_like(bias_V, dtype=torch.float32)
        for start in range(0, hidden_MD.shape[0], per_buffer):
            buffer = slice(start, start + per_buffer)
            hidden, targets, losses = hidden_MD[buffer], targets_M[buffer], losses_M[buffer]
            logits = hidden.new_empty(hidden.shape[0], vocab_size)
            for first in range(0, hidden.shape[0], per_chunk):
                chunk = slice(first, first + per_chunk)
                torch.mm(hidden[chunk], weight_VD.t(), out=logits[chunk])
                losses[chunk] = kernel(logits[chunk], bias_V, targets[chunk, None], scale)
            torch.mm(logits, weight_VD, out=grad_hidden[buffer])
            if grad_bias is not None:
                grad_bias += logits.sum(0, dtype=torch.float32)
            if grad_weight is None:
                grad_weight = logits.t() @ hidden
            else:
                grad_weight += logits.t() @ hidden
        if grad_weight is None:  # no target at all
            grad_weight = torch.zeros_like(weight_VD)
        grad_bias = None if bias_V is None or grad_bias is None else grad_bias.to(bias_V.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight_VD.dtype), grad_bias)
        ctx.mark_non_differentiable(losses_M)
        return losses_M.sum() * scale, losses_M

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> Any:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        factor = grad_loss.to(grad_hidden.dtype)
        bias = None if grad_bias is None else grad_bias * factor
        return grad_hidden * factor, grad_weight * factor, bias, None, None, None, None
