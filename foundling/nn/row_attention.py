"""Attention within packed rows in C++ (row_attention.cpp), for CPU: one call for all rows, whatever their lengths.

A task is a row and a key-value head; its scores stay in the core's cache, a few queries at a time, and are computed
again in the backward pass, as flash attention does (Dao et al. 2022, arXiv:2205.14135, algorithms 1 and 4). Arithmetic
is fp32 for every type. Beside it the products of each length apart cost a dozen calls a length, and their scores
memory: 32 rows of 19 to 128 tokens with 4 heads of 64, forward and backward, take 7 ms against 28 (fp32, two threads).
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundling.core.native import native_kernel

# Shapes: N = packed query tokens, M = packed key tokens, H = query heads, G = key-value heads, K = width of a head,
# R = rows.


def row_attention(
    q_NHK: Tensor,
    k_MGK: Tensor,
    v_MGK: Tensor,
    q_bounds_R1: Tensor,
    k_bounds_R1: Tensor,
    longest_keys: int,
    *,
    causal: bool,
    window: int | None = None,
    prefix_R: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(K)) v within each row; [N, H, K] out, differentiable. fp32 or bf16, where `knows_type`.

    Arguments as for `blockwise_attention`.
    """
    span = -1 if window is None else window // 2
    return _forward(q_NHK, k_MGK, v_MGK, q_bounds_R1, k_bounds_R1, longest_keys, causal, span, prefix_R)[0]


def knows_type(dtype: torch.dtype) -> bool:
    """Whether there is a kernel for tensors of this type on this machine."""
    return _kernel("forward", dtype) is not None


class _Shape(ctypes.Structure):
    """`Shape` of row_attention.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "heads", "groups", "width", "causal", "span")),
        *((name, ctypes.c_int64) for name in ("q_token", "k_token", "v_token", "longest_keys")),
        ("scale", ctypes.c_float),
    )


@cache
def _kernel(which: str, dtype: torch.dtype) -> Callable[..., Any] | None:
    names = {torch.bfloat16: "bf16", torch.float32: "fp32"}
    argtypes = [ctypes.c_void_p] * {"forward": 8, "backward": 11}[which] + [ctypes.POINTER(_Shape)]
    source = Path(__file__).with_suffix(".cpp")
    return native_kernel(source, f"{which}_{names[dtype]}", argtypes) if dtype in names else None


def _call(which: str, tensors: list[Tensor | None], shape: _Shape, dtype: torch.dtype) -> None:
    kernel = _kernel(which, dtype)
    assert kernel is not None, f"no kernel for {dtype}"
    kernel(*(None if t is None else t.data_ptr() for t in tensors), ctypes.byref(shape))


def _whole_tokens(x_NHK: Tensor) -> Tensor:
    """Itself, or a copy where a token's heads do not lie one behind another."""
    heads, width = x_NHK.shape[1:]
    whole = x_NHK.stride(-1) == 1 and (heads == 1 or x_NHK.stride(1) == width)
    return x_NHK if whole else x_NHK.contiguous()


def _shape(
    q: Tensor, k: Tensor, v: Tensor, bounds: tuple[Tensor, Tensor], longest_keys: int, causal: bool, span: int
) -> _Shape:
    """What the kernel takes on trust: it reads and writes where bounds point, in room for the longest row."""
    for tensor, bounds_R1 in zip((q, k), bounds, strict=True):
        assert bounds_R1.dtype == torch.int32, bounds_R1.dtype
        assert bounds_R1.is_contiguous()
        assert int(bounds_R1[-1]) <= len(tensor), "rows must lie within the tokens"
    assert int(bounds[1].diff().max()) <= longest_keys, "longest_keys must be those of the longest row"
    (_, heads, width), groups = q.shape, k.shape[1]
    strides = (q.stride(0), k.stride(0), v.stride(0))
    return _Shape(len(bounds[0]) - 1, heads, groups, width, causal, span, *strides, longest_keys, width**-0.5)


def _int32(prefix_R: Tensor | None) -> Tensor | None:
    return None if prefix_R is None else prefix_R.to(torch.int32).contiguous()


@torch.library.custom_op("foundling::row_attention", mutates_args=())
def _forward(
    q_NHK: Tensor,
    k_MGK: Tensor,
    v_MGK: Tensor,
    q_bounds_R1: Tensor,
    k_bounds_R1: Tensor,
    longest_keys: int,
    causal: bool,
    span: int,
    prefix_R: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The output, and the logarithm of each query's sum of exp(score), fp32 [N, H]."""
    q, k, v = (_whole_tokens(x) for x in (q_NHK, k_MGK, v_MGK))
    out_NHK, logsums_NH = _results(q)
    shape = _shape(q, k, v, (q_bounds_R1, k_bounds_R1), longest_keys, causal, span)
    tensors = [q, k, v, q_bounds_R1, k_bounds_R1, _int32(prefix_R), out_NHK, logsums_NH]
    _call("forward", tensors, shape, q.dtype)
    return out_NHK, logsums_NH


def _results(q_NHK: Tensor) -> tuple[Tensor, Tensor]:
    return q_NHK.new_empty(q_NHK.shape), q_NHK.new_empty(q_NHK.shape[:2], dtype=torch.float32)


@_forward.register_fake
def _(q_NHK, k_MGK, v_MGK, q_bounds_R1, k_bounds_R1, longest_keys, causal, span, prefix_R):  # type: ignore[no-untyped-def]
    return _results(q_NHK)


@torch.library.custom_op("foundling::row_attention_backward", mutates_args=())
def _backward(
    grad_NHK: Tensor,
    q_NHK: Tensor,
    k_MGK: Tensor,
    v_MGK: Tensor,
    q_bounds_R1: Tensor,
    k_bounds_R1: Tensor,
    longest_keys: int,
    causal: bool,
    span: int,
    prefix_R: Tensor | None,
    logsums_NH: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (_whole_tokens(x) for x in (q_NHK, k_MGK, v_MGK))
    grads = _gradients(q, k)
    shape = _shape(q, k, v, (q_bounds_R1, k_bounds_R1), longest_keys, causal, span)
    bounds = [q_bounds_R1, k_bounds_R1, _int32(prefix_R)]
    _call("backward", [grad_NHK.contiguous(), q, k, v, *bounds, logsums_NH, *grads], shape, q.dtype)
    return grads


def _gradients(q_NHK: Tensor, k_MGK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q_NHK.new_empty(q_NHK.shape), k_MGK.new_empty(k_MGK.shape), k_MGK.new_empty(k_MGK.shape)


@_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_NHK, q_NHK, k_MGK, v_MGK, q_bounds_R1, k_bounds_R1, longest_keys, causal, span, prefix_R, logsums_NH
):
    return _gradients(q_NHK, k_MGK)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, q_bounds_R1, k_bounds_R1, *ctx.how, prefix_R = inputs
    ctx.save_for_backward(q, k, v, q_bounds_R1, k_bounds_R1, prefix_R, output[1])
    ctx.mark_non_differentiable(output[1])


def _autograd(ctx, grad_NHK, _):  # type: ignore[no-untyped-def]
    *tensors, prefix_R, logsums_NH = ctx.saved_tensors
    return *_backward(grad_NHK, *tensors, *ctx.how, prefix_R, logsums_NH), None, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
