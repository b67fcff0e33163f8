"""Causal attention for training on CPU, from batched matrix products and compiled softmax kernels.

Torch's fused attention accumulates its backward in small unpacked bf16 products on CPU; plain batched products reach
the full matrix rate. Rows are taken in blocks of queries; a block multiplies only the keys before its end, so about
half of a long row's products are skipped. The unnormalised weights exp(s - max) are kept for the backward, in the
input's type; the sums stay in fp32. It is one opaque operator, so a compiled block around it depends on the number of
tokens alone and never on how they fall into rows.
"""

# Shapes: N = packed tokens, H = query heads, G = key-value heads, K = width of a head, Z = rows x key-value heads,
# Q = query heads of one key-value head, T = tokens of a row, B = queries of a block, S = keys that a block sees.

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from foundling.data.batch import row_groups

BLOCK_ROWS = 256
"""Queries of a block. Blocks of 64, 128 and 256 differ by less than the noise at T = 256; more calls cost more."""


def blockwise_attention(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, bounds_R1: Tensor, longest: int) -> Tensor:
    """softmax(q k^T / sqrt(K)) v within each row, no token seeing a later one. [N, H, K] out, differentiable.

    bounds_R1: int32 [R + 1] on CPU; longest: tokens of the longest row. Any floating type.
    """
    return _forward(q_NHK, k_NGK, v_NGK, bounds_R1, longest)[0]


# The kernels see flat shapes only, so that one compilation serves every row length: Z x Q = P pairs, B queries, S keys.


@torch.compile(dynamic=True)
def _softmax_(scores_PBS: Tensor, first_row: int, scale: float) -> Tensor:
    """Scores to exp(s - max) in place, 0 where a key lies after its query; the reciprocal sums, fp32 [P, B, 1]."""
    num_queries, num_keys = scores_PBS.shape[-2:]
    query = torch.arange(num_queries)[:, None] + first_row
    s = (scores_PBS.float() * scale).masked_fill(torch.arange(num_keys)[None, :] > query, -math.inf)
    weights = (s - s.amax(-1, keepdim=True)).exp()
    scores_PBS.copy_(weights)
    return weights.sum(-1, keepdim=True).reciprocal()


@torch.compile(dynamic=True)
def _scaled(x: Tensor, inverse: Tensor) -> Tensor:
    return (x.float() * inverse).to(x.dtype)


@torch.compile(dynamic=True)
def _softmax_backward_(weights_PBS: Tensor, inverse_PB1: Tensor, grad_PBS: Tensor, scale: float) -> None:
    """Gradient of the probabilities to gradient of the unscaled scores, in place in `grad_PBS`."""
    p, g = weights_PBS.float() * inverse_PB1, grad_PBS.float()
    grad_PBS.copy_(p * (g - (p * g).sum(-1, keepdim=True)) * scale)


def _rows(x_NHK: Tensor, group: tuple[int, int, int], num_groups: int) -> Tensor:
    """A group's rows as contiguous [Z, Q, T, K]."""
    start, num_rows, length = group
    x = x_NHK[start : start + num_rows * length]
    x = x.view(num_rows, length, num_groups, -1, x.shape[-1])
    return x.permute(0, 2, 3, 1, 4).contiguous().flatten(0, 1)


def _packed_(out_NHK: Tensor, x_ZQTK: Tensor, group: tuple[int, int, int]) -> None:
    """The inverse of `_rows`, into its place in the packed tensor."""
    start, num_rows, length = group
    x = x_ZQTK.unflatten(0, (num_rows, -1)).permute(0, 3, 1, 2, 4)
    target = out_NHK[start : start + num_rows * length]
    target.view(num_rows, length, *x.shape[2:]).copy_(x)


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    for first in range(0, length, BLOCK_ROWS):
        yield first, min(length, first + BLOCK_ROWS)


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
    q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, bounds_R1: Tensor, longest: int
) -> tuple[Tensor, Tensor, Tensor]:
    num_groups, head_width = k_NGK.shape[1:]
    scale = head_width**-0.5
    out_NHK = torch.empty_like(q_NHK, memory_format=torch.contiguous_format)
    weights, inverses = _buffers(q_NHK, longest)
    weight_arena, inverse_arena = _Arena(weights), _Arena(inverses)
    for group in row_groups(bounds_R1):
        q, k, v = (_rows(x, group, num_groups) for x in (q_NHK, k_NGK, v_NGK))
        k, v = k.squeeze(1), v.squeeze(1)
        num_pairs, per_group, length, _ = q.shape
        out = torch.empty_like(q)
        for first, end in _blocks(length):
            w = weight_arena.take(num_pairs, per_group * (end - first), end)
            torch.bmm(q[:, :, first:end].flatten(1, 2), k[:, :end].transpose(1, 2), out=w)
            inverse = inverse_arena.take(num_pairs * per_group, end - first, 1)
            inverse.copy_(_softmax_(w.view(*inverse.shape[:2], end), first, scale))
            o = _scaled(torch.bmm(w, v[:, :end]).view(-1, head_width), inverse.view(-1, 1))
            out[:, :, first:end] = o.view(num_pairs, per_group, -1, head_width)
        _packed_(out_NHK, out, group)
    return out_NHK, weights, inverses


def _buffers(q_NHK: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Room for all weights and sums. Long rows use less than their share: untouched pages cost nothing."""
    num = q_NHK.shape[0] * q_NHK.shape[1]
    return q_NHK.new_empty(num * longest), q_NHK.new_empty(num, dtype=torch.float32)


@_forward.register_fake
def _(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, bounds_R1: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q_NHK, memory_format=torch.contiguous_format), *_buffers(q_NHK, longest)


@torch.library.custom_op("foundling::blockwise_attention_backward", mutates_args=())
def _backward(
    grad_NHK: Tensor, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, bounds_R1: Tensor, weights: Tensor, inverses: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    num_groups, head_width = k_NGK.shape[1:]
    scale = head_width**-0.5
    grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q_NHK, k_NGK, v_NGK)]
    weight_arena, inverse_arena = _Arena(weights), _Arena(inverses)
    for group in row_groups(bounds_R1):
        q, k, v, grad = (_rows(x, group, num_groups) for x in (q_NHK, k_NGK, v_NGK, grad_NHK))
        k, v = k.squeeze(1), v.squeeze(1)
        num_pairs, per_group, length, _ = q.shape
        dq = torch.empty_like(q)
        one_block = length <= BLOCK_ROWS
        dk, dv = (k, v) if one_block else (torch.zeros_like(k, dtype=torch.float32) for _ in range(2))
        for first, end in _blocks(length):
            w = weight_arena.take(num_pairs, per_group * (end - first), end)
            inverse = inverse_arena.take(num_pairs * per_group, end - first, 1)
            g = grad[:, :, first:end].flatten(1, 2)
            scaled = _scaled(g.reshape(-1, head_width), inverse.view(-1, 1)).view(g.shape)
            dv_block = torch.bmm(w.transpose(1, 2), scaled)
            ds = torch.bmm(g, v[:, :end].transpose(1, 2))
            shape = (*inverse.shape[:2], end)
            _softmax_backward_(w.view(shape), inverse, ds.view(shape), scale)
            dq[:, :, first:end] = torch.bmm(ds, k[:, :end]).unflatten(1, (per_group, -1))
            dk_block = torch.bmm(ds.transpose(1, 2), q[:, :, first:end].flatten(1, 2))
            if one_block:
                dk, dv = dk_block, dv_block
            else:  # sums over blocks stay in fp32
                dk[:, :end] += dk_block
                dv[:, :end] += dv_block
        for target, value in zip(grads, (dq, dk.unsqueeze(1), dv.unsqueeze(1)), strict=True):
            _packed_(target, value, group)
    return grads[0], grads[1], grads[2]


@_backward.register_fake
def _(
    grad_NHK: Tensor, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, bounds_R1: Tensor, weights: Tensor, inverses: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q_NHK, k_NGK, v_NGK))
    return dq, dk, dv


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q_NHK, k_NGK, v_NGK, bounds_R1, _ = inputs
    ctx.save_for_backward(q_NHK, k_NGK, v_NGK, bounds_R1, *output[1:])


def _autograd(ctx, grad_NHK, _weights, _inverses):  # type: ignore[no-untyped-def]
    return *_backward(grad_NHK.contiguous(), *ctx.saved_tensors), None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
