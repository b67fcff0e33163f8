"""The compiled kernels of nn/two_stream_blockwise.py, between its matrix products."""

# Shapes: H = heads, B = rows of one shape, T and Q = content and query states of each, P = T + Q, J = its keys,
# K = width of a head, L = distances, W = places where neighbours may start; G = heads, rows and states in one.

import math

import torch
from torch import Tensor

from foundling.optim.compile_lazily import compile_lazily

# Content and query states come as two tensors and stand one after the other in each row of a third, [H, B, P, K]: so
# the kernels see no slices, whose strides would ask for a compilation each.


@compile_lazily
def pack_(
    content_BTHK: Tensor, query_BQHK: Tensor, bias_HK: Tensor | None, out_HBPK: Tensor, bias2_HK: Tensor | None,
    out2_HBPK: Tensor | None,
) -> None:  # fmt: skip
    """The states head by head, with one bias added, and with another."""
    q_HBPK = torch.cat([content_BTHK, query_BQHK], dim=1).permute(2, 0, 1, 3)
    out_HBPK.copy_(q_HBPK if bias_HK is None else q_HBPK + bias_HK[:, None, None])
    if out2_HBPK is not None and bias2_HK is not None:
        out2_HBPK.copy_(q_HBPK + bias2_HK[:, None, None])


@compile_lazily
def segment_scores(content_HBPK: Tensor, shift_HK: Tensor, difference_HK: Tensor) -> Tensor:
    """What a key of another segment gets, fp32 [H, B, P]."""
    q = content_HBPK.float() + shift_HK.float()[:, None, None]
    return (q * difference_HK.float()[:, None, None]).sum(-1)


@compile_lazily
def softmax_(
    scores_HBPJ: Tensor,
    windows_HBPWJ: Tensor | None,
    first_BP: Tensor,
    limit_BP: Tensor,
    rank_BJ: Tensor,
    other_HBP: Tensor | None,
    segment_BP: Tensor | None,
    segment_BJ: Tensor | None,
    scale: float,
) -> Tensor:
    """Scores to exp(s - max) in place, 0 where a key is not seen; the reciprocal sums, fp32 [H, B, P, 1]."""
    s = scores_HBPJ.float()
    if windows_HBPWJ is not None:
        s = s + _windows(windows_HBPWJ, first_BP).float()
    if other_HBP is not None and segment_BP is not None and segment_BJ is not None:
        differs = segment_BP[:, :, None] != segment_BJ[:, None]
        s = s + torch.where(differs[None], other_HBP[..., None], 0.0)
    s = (s * scale).masked_fill((rank_BJ[:, None] >= limit_BP[:, :, None])[None], -math.inf)
    top = s.amax(-1, keepdim=True)
    weights = (s - torch.where(top == -math.inf, 0.0, top)).exp()
    scores_HBPJ.copy_(weights)
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, total.reciprocal(), 0.0)


def _windows(windows_HBPWJ: Tensor, first_BP: Tensor) -> Tensor:
    """The window of each state that starts at `first_BP`: [H, B, P, J]."""
    heads, rows, states = windows_HBPWJ.shape[:3]
    h = torch.arange(heads)[:, None, None]
    b = torch.arange(rows)[None, :, None]
    p = torch.arange(states)[None, None, :]
    return windows_HBPWJ[h, b, p, first_BP[None]]


@compile_lazily
def unpack_(content_BTHK: Tensor, query_BQHK: Tensor, out_HBPK: Tensor, inverse_HBP1: Tensor) -> None:
    """The outputs times the reciprocal sums, where they belong."""
    out_BPHK = (out_HBPK.float() * inverse_HBP1).permute(1, 2, 0, 3)
    content_BTHK.copy_(out_BPHK[:, : content_BTHK.shape[1]])
    query_BQHK.copy_(out_BPHK[:, content_BTHK.shape[1] :])


@compile_lazily
def pack_gradient_(
    content_BTHK: Tensor, query_BQHK: Tensor, inverse_HBP1: Tensor, plain_HBPK: Tensor, scaled_HBPK: Tensor
) -> None:
    """A gradient head by head, as it is and times the reciprocal sums."""
    grad_HBPK = torch.cat([content_BTHK, query_BQHK], dim=1).permute(2, 0, 1, 3)
    plain_HBPK.copy_(grad_HBPK)
    scaled_HBPK.copy_(grad_HBPK.float() * inverse_HBP1)


@compile_lazily
def softmax_backward_(weights_GJ: Tensor, inverse_G1: Tensor, grad_GJ: Tensor, scale: float) -> None:
    """Gradient of the probabilities to that of the unscaled scores, in place in `grad_GJ`."""
    p, g = weights_GJ.float() * inverse_G1, grad_GJ.float()
    grad_GJ.copy_(p * (g - (p * g).sum(-1, keepdim=True)) * scale)


@compile_lazily
def other_gradient(grad_HBPJ: Tensor, segment_BP: Tensor, segment_BJ: Tensor) -> Tensor:
    """Gradient of what keys of other segments get, fp32 [H, B, P]."""
    differs = segment_BP[:, :, None] != segment_BJ[:, None]
    return torch.where(differs[None], grad_HBPJ.float(), 0.0).sum(-1)


@compile_lazily
def distance_gradient_(grad_HBPL: Tensor, windows_HBPWL: Tensor, first_BP: Tensor, margin: int, num_keys: int) -> None:
    """The gradient of the scores, [H, B, P, J] with a margin around, to its place among all distances; 0 elsewhere."""
    found = _windows(windows_HBPWL, margin - first_BP)
    key_BPL = torch.arange(grad_HBPL.shape[-1])[None, None] - first_BP[:, :, None]
    grad_HBPL.copy_(torch.where(((key_BPL >= 0) & (key_BPL < num_keys))[None], found, 0.0))


@compile_lazily
def unpack_sum_(
    content_BTHK: Tensor,
    query_BQHK: Tensor,
    grad_HBPK: Tensor,
    distance_HBPK: Tensor | None,
    other_HBP: Tensor | None,
    difference_HK: Tensor | None,
) -> None:
    """The parts of the queries' gradient, added, where they belong."""
    total = grad_HBPK.float()
    if distance_HBPK is not None:
        total = total + distance_HBPK.float()
    if other_HBP is not None and difference_HK is not None:
        total = total + other_HBP[..., None] * difference_HK.float()[:, None, None]
    total_BPHK = total.permute(1, 2, 0, 3)
    content_BTHK.copy_(total_BPHK[:, : content_BTHK.shape[1]])
    query_BQHK.copy_(total_BPHK[:, content_BTHK.shape[1] :])


def windows_of(x_HBPL: Tensor, size: int) -> Tensor:
    """All runs of `size` neighbours in each last row, as one view [H, B, P, W, size] that overlaps itself."""
    return x_HBPL.as_strided((*x_HBPL.shape[:3], x_HBPL.shape[3] - size + 1, size), (*x_HBPL.stride()[:3], 1, 1))
