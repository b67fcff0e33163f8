"""Attention for training on CPU, from batched matrix products and softmax kernels.

Torch's fused attention accumulates its backward in small unpacked bf16 products on CPU; plain batched products reach
the full matrix rate. Rows are taken in blocks of queries; a block multiplies only the keys that one of its queries
sees, so about half of a long causal row's products are skipped, and nearly all of a local one's. The unnormalised
weights exp(s - max) are kept for the backward, in the input's type; the sums stay in fp32. It is one opaque operator,
so a compiled block around it depends on the number of tokens alone and never on how they fall into rows.
"""

# Shapes: N = packed query tokens, M = packed key tokens, H = query heads, G = key-value heads, K = width of a head,
# R = rows, Q = query heads of one key-value head, T = query tokens of a row, U = its key tokens, B = queries of a
# block, S = keys that a block sees. [Z, ...] has rows and key-value heads in one dimension.

import ctypes
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundling.core.native import native_kernel
from foundling.data.batch import RowPairs, row_pairs
from foundling.optim.compile_lazily import compile_lazily

BLOCK_ROWS = 256
"""Queries of a block. Blocks of 64, 128 and 256 differ by less than the noise at T = 256; more calls cost more."""


def blockwise_attention(
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
    """softmax(q k^T / sqrt(K)) v within each row; [N, H, K] out, differentiable. Any floating type.

    Bounds: int32 [R + 1] on CPU, of queries and keys. longest_keys: keys of the longest row. causal, window and
    prefix_R: as for `attend`; they need queries and keys of the same tokens.
    """
    span = -1 if window is None else window // 2
    return _forward(q_NHK, k_MGK, v_MGK, q_bounds_R1, k_bounds_R1, longest_keys, causal, span, prefix_R)[0]


def _rows(x_NHK: Tensor, group: RowPairs, num_groups: int, *, keys: bool) -> Tensor:
    """A group's rows of a packed tensor as [R, G, Q, T, K]: a view, seen head by head."""
    first, length = (group.first_key, group.num_keys) if keys else (group.first_query, group.num_queries)
    x = x_NHK[first : first + group.num_rows * length]
    return x.view(group.num_rows, length, num_groups, -1, x.shape[-1]).permute(0, 2, 3, 1, 4)


@dataclass(frozen=True)
class _Block:
    """Some queries of each row of a group, and the keys that they see: [first_key, end_key), less where masked."""

    first: int
    end: int
    first_key: int
    end_key: int
    low_RB: Tensor | None
    """First visible key of each query, [1 or R, B]; None: all of the block's."""
    high_RB: Tensor | None
    """End of the visible keys; None: all of the block's."""


def _blocks(group: RowPairs, causal: bool, span: int, prefix_R: Tensor | None) -> Iterator[_Block]:
    length = group.num_queries
    for first in range(0, length, BLOCK_ROWS):
        end = min(length, first + BLOCK_ROWS)
        query = torch.arange(first, end, dtype=torch.int32)[None]
        low = high = None
        if causal:
            high = query + 1
            if prefix_R is not None:
                prefix_R1 = prefix_R[group.first_row : group.first_row + group.num_rows, None]
                high = torch.maximum(high, prefix_R1.to(torch.int32))
        if span >= 0:
            low = query - span
            high = query + span + 1 if high is None else torch.minimum(high, query + span + 1)
        first_key = 0 if low is None else max(0, int(low.min()))
        end_key = group.num_keys if high is None else min(group.num_keys, int(high.max()))
        low = None if low is None or int(low.max()) <= first_key else low
        high = None if high is None or int(high.min()) >= end_key else high
        yield _Block(first, end, first_key, end_key, low, high)


# The kernels see flat shapes only, so that one compilation serves every row length.


def _softmax(
    scores_RHBS: Tensor, low_RB: Tensor | None, high_RB: Tensor | None, first_key: int, scale: float
) -> Tensor:
    """Scores to exp(s - max) in place, 0 where a key is not visible; the reciprocal sums, fp32 [R, H, B, 1]."""
    key = torch.arange(scores_RHBS.shape[-1], dtype=torch.int32) + first_key
    s = scores_RHBS.float() * scale
    if high_RB is not None:
        s = s.masked_fill(key >= high_RB[:, None, :, None], -math.inf)
    if low_RB is not None:
        s = s.masked_fill(key < low_RB[:, None, :, None], -math.inf)
    weights = (s - s.amax(-1, keepdim=True)).exp()
    scores_RHBS.copy_(weights)
    return weights.sum(-1, keepdim=True).reciprocal()


# One function for each kind of mask: torch compiles a function in eight variants at most, and a run of an
# encoder-decoder has full, causal and cross attention.


@compile_lazily
def _softmax_full_(scores_RHBS: Tensor, scale: float) -> Tensor:
    return _softmax(scores_RHBS, None, None, 0, scale)


@compile_lazily
def _softmax_below_(scores_RHBS: Tensor, high_RB: Tensor, first_key: int, scale: float) -> Tensor:
    return _softmax(scores_RHBS, None, high_RB, first_key, scale)


@compile_lazily
def _softmax_between_(
    scores_RHBS: Tensor, low_RB: Tensor, high_RB: Tensor | None, first_key: int, scale: float
) -> Tensor:
    return _softmax(scores_RHBS, low_RB, high_RB, first_key, scale)


@cache
def _native_softmax(dtype: torch.dtype) -> Callable[..., Any] | None:
    """The kernel of `softmax.cpp` for scores of a type, where the machine has it."""
    names = {torch.bfloat16: "softmax_bf16", torch.float32: "softmax_fp32"}
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    argtypes = [pointer] * 3 + [size, pointer] + [size] * 6 + [ctypes.c_float]
    return native_kernel(Path(__file__).with_name("softmax.cpp"), names[dtype], argtypes) if dtype in names else None


def _softmax_natively_(kernel: Callable[..., Any], scores_RHBS: Tensor, block: _Block, scale: float) -> Tensor:
    assert scores_RHBS.is_contiguous()
    inverse = scores_RHBS.new_empty((*scores_RHBS.shape[:3], 1), dtype=torch.float32)
    masks: list[int | None] = []
    for mask in (block.low_RB, block.high_RB):
        assert mask is None or (mask.is_contiguous() and mask.dtype == torch.int32)
        masks += [None, 0] if mask is None else [mask.data_ptr(), mask.shape[0]]
    kernel(scores_RHBS.data_ptr(), inverse.data_ptr(), *masks, *scores_RHBS.shape, block.first_key, scale)
    return inverse


def _softmax_(scores_RHBS: Tensor, block: _Block, scale: float) -> Tensor:
    """Scores to exp(s - max) in place, 0 where a key is not visible; the reciprocal sums, fp32 [R, H, B, 1]."""
    kernel = _native_softmax(scores_RHBS.dtype)
    if kernel is not None:
        return _softmax_natively_(kernel, scores_RHBS, block, scale)
    if block.low_RB is not None:
        return _softmax_between_(scores_RHBS, block.low_RB, block.high_RB, block.first_key, scale)
    if block.high_RB is not None:
        return _softmax_below_(scores_RHBS, block.high_RB, block.first_key, scale)
    return _softmax_full_(scores_RHBS, scale)


@compile_lazily
def _scaled(x: Tensor, inverse: Tensor) -> Tensor:
    return (x.float() * inverse).to(x.dtype)


@compile_lazily
def _softmax_backward_(weights_PBS: Tensor, inverse_PB1: Tensor, grad_PBS: Tensor, scale: float) -> None:
    """Gradient of the probabilities to gradient of the unscaled scores, in place in `grad_PBS`."""
    p, g = weights_PBS.float() * inverse_PB1, grad_PBS.float()
    grad_PBS.copy_(p * (g - (p * g).sum(-1, keepdim=True)) * scale)


class _Arena:
    """Hands out consecutive pieces of one flat buffer, in the same order on the way back."""

    def __init__(self, flat: Tensor) -> None:
        self._flat, self._used = flat, 0

    def take(self, *shape: int) -> Tensor:
        size = math.prod(shape)
        piece = self._flat[self._used : self._used + size].view(shape)
        self._used += size
        return piece


@torch.library.custom_op("foundling::blockwise_attention", mutates_args=())
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output; then what the backward reads: weights, reciprocal sums, and q, k, v with each head's rows whole."""
    num_groups, width = k_MGK.shape[1:]
    scale = width**-0.5
    out_NHK, *kept = _forward_buffers(q_NHK, k_MGK, longest_keys)
    weight_arena, inverse_arena, *arenas = map(_Arena, kept)
    for group in row_pairs(q_bounds_R1, k_bounds_R1):
        views = [_rows(x, group, num_groups, keys=i > 0) for i, x in enumerate((q_NHK, k_MGK, v_MGK))]
        q, k, v = (a.take(*x.shape).copy_(x).flatten(0, 1) for a, x in zip(arenas, views, strict=True))
        k, v = k.squeeze(1), v.squeeze(1)
        out = _rows(out_NHK, group, num_groups, keys=False)
        for block in _blocks(group, causal, span, prefix_R):
            keys, size = slice(block.first_key, block.end_key), block.end - block.first
            w = weight_arena.take(k.shape[0], q.shape[1] * size, block.end_key - block.first_key)
            torch.bmm(q[:, :, block.first : block.end].flatten(1, 2), k[:, keys].transpose(1, 2), out=w)
            inverse = inverse_arena.take(group.num_rows, num_groups * q.shape[1], size, 1)
            scores = w.view(*inverse.shape[:3], -1)
            inverse.copy_(_softmax_(scores, block, scale))
            o = _scaled(torch.bmm(w, v[:, keys]).view(-1, width), inverse.view(-1, 1))
            out[:, :, :, block.first : block.end].copy_(o.view(*out.shape[:3], size, width))
    return out_NHK, *kept  # type: ignore[return-value]


def _forward_buffers(q_NHK: Tensor, k_MGK: Tensor, longest_keys: int) -> tuple[Tensor, ...]:
    """Room for all weights and sums. Long rows use less than their share: untouched pages cost nothing."""
    num = q_NHK.shape[0] * q_NHK.shape[1]
    return (
        torch.empty_like(q_NHK, memory_format=torch.contiguous_format),
        q_NHK.new_empty(num * longest_keys),
        q_NHK.new_empty(num, dtype=torch.float32),
        q_NHK.new_empty(q_NHK.numel()),
        k_MGK.new_empty(k_MGK.numel()),
        k_MGK.new_empty(k_MGK.numel()),
    )


@_forward.register_fake
def _(q_NHK, k_MGK, v_MGK, q_bounds_R1, k_bounds_R1, longest_keys, causal, span, prefix_R):  # type: ignore[no-untyped-def]
    return _forward_buffers(q_NHK, k_MGK, longest_keys)


@torch.library.custom_op("foundling::blockwise_attention_backward", mutates_args=())
def _backward(
    grad_NHK: Tensor,
    num_groups: int,
    q_bounds_R1: Tensor,
    k_bounds_R1: Tensor,
    causal: bool,
    span: int,
    prefix_R: Tensor | None,
    weights: Tensor,
    inverses: Tensor,
    q_rows: Tensor,
    k_rows: Tensor,
    v_rows: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    width = grad_NHK.shape[-1]
    scale = width**-0.5
    grads = _backward_buffers(grad_NHK, num_groups, k_rows)
    weight_arena, inverse_arena, *arenas = map(_Arena, (weights, inverses, q_rows, k_rows, v_rows))
    for group in row_pairs(q_bounds_R1, k_bounds_R1):
        views = [_rows(x, group, num_groups, keys=i > 0) for i, x in enumerate(grads)]
        q, k, v = (a.take(*x.shape).flatten(0, 1) for a, x in zip(arenas, views, strict=True))
        k, v = k.squeeze(1), v.squeeze(1)
        num_pairs, per_group, length, _ = q.shape
        grad = _rows(grad_NHK, group, num_groups, keys=False).contiguous().flatten(0, 1)
        one_block = length <= BLOCK_ROWS
        if not one_block:
            dk, dv = (torch.zeros_like(k, dtype=torch.float32) for _ in range(2))
        for block in _blocks(group, causal, span, prefix_R):
            keys, size = slice(block.first_key, block.end_key), block.end - block.first
            w = weight_arena.take(num_pairs, per_group * size, block.end_key - block.first_key)
            inverse = inverse_arena.take(num_pairs * per_group, size, 1)
            g = grad[:, :, block.first : block.end].flatten(1, 2)
            scaled = _scaled(g.reshape(-1, width), inverse.view(-1, 1)).view(g.shape)
            dv_block = torch.bmm(w.transpose(1, 2), scaled)
            ds = torch.bmm(g, v[:, keys].transpose(1, 2))
            shape = (*inverse.shape[:2], ds.shape[-1])
            _softmax_backward_(w.view(shape), inverse, ds.view(shape), scale)
            dq = torch.bmm(ds, k[:, keys]).view(*views[0].shape[:3], size, width)
            views[0][:, :, :, block.first : block.end].copy_(dq)
            dk_block = torch.bmm(ds.transpose(1, 2), q[:, :, block.first : block.end].flatten(1, 2))
            if one_block and keys == slice(0, group.num_keys):
                dk, dv = dk_block, dv_block
            elif one_block:
                dk, dv = (torch.zeros_like(k) for _ in range(2))
                dk[:, keys], dv[:, keys] = dk_block, dv_block
            else:  # sums over blocks stay in fp32
                dk[:, keys] += dk_block
                dv[:, keys] += dv_block
        views[1].copy_(dk.view(views[1].shape))
        views[2].copy_(dv.view(views[2].shape))
    return grads


def _backward_buffers(grad_NHK: Tensor, num_groups: int, k_rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    shape = (k_rows.shape[0] // (num_groups * grad_NHK.shape[-1]), num_groups, grad_NHK.shape[-1])
    dq = torch.empty_like(grad_NHK, memory_format=torch.contiguous_format)
    return dq, k_rows.new_empty(shape), k_rows.new_empty(shape)


@_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_NHK, num_groups, q_bounds_R1, k_bounds_R1, causal, span, prefix_R, weights, inverses, q_rows, k_rows, v_rows
):
    return _backward_buffers(grad_NHK, num_groups, k_rows)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, k_MGK, _, q_bounds_R1, k_bounds_R1, _, ctx.causal, ctx.span, prefix_R = inputs
    ctx.num_groups = k_MGK.shape[1]
    ctx.save_for_backward(q_bounds_R1, k_bounds_R1, prefix_R, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _autograd(ctx, grad_NHK, *_):  # type: ignore[no-untyped-def]
    q_bounds_R1, k_bounds_R1, prefix_R, *kept = ctx.saved_tensors
    grads = _backward(
        grad_NHK.contiguous(), ctx.num_groups, q_bounds_R1, k_bounds_R1, ctx.causal, ctx.span, prefix_R, *kept
    )
    return *grads, None, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
