"""Two-stream attention for training on CPU, from batched matrix products and compiled kernels between them.

The same function as `plain_two_stream` (nn/two_stream.py), as nn/blockwise.py is that of plain attention: one opaque
operator, so that a compiled block around it depends on the number of states and keys alone.

Scores by distance cost one product of all queries with the table of all 2J - 1 distances. Keys stand in the order of
the text, so a query's scores for its J keys are J neighbours among those products, and the softmax kernel reads them
from where they start (128 x 128 scores: 0.64 ns each on one core, as from a fixed place; a gather: 1.4 ns). Backward
writes the gradient of the products the same way. Segments enter as the difference of "another" and "the same": what
all keys of a query share does not change its weights.
"""

# Shapes: U = looking states, S = keys, H = heads, K = width of a head, L = distances, B = rows of one shape, P = T + Q
# content and query states of each, J = its keys, W = places where J (or L) neighbours may start. [Z, ...] has heads and
# rows in one dimension; G = heads, rows and states in one.

import math

import torch
from torch import Tensor

from foundling.nn.relative import Relative, num_distances
from foundling.nn.two_stream import RowGroup, Streams, groups_of, keys_of_rows, of_rows


def blockwise_two_stream(
    q_UHK: Tensor, k_SHK: Tensor, v_SHK: Tensor, streams: Streams, relative: Relative | None
) -> Tensor:
    """softmax(scores / sqrt(K)) v over the keys that each state sees, [U, H, K]; 0 where it sees none."""
    r, s = relative, streams
    segment = None if r is None or s.segment_U is None else r.segment_2HK
    out_UHK: Tensor = _forward(
        q_UHK, k_SHK, v_SHK,
        None if r is None else r.distance_LHK,
        None if r is None else r.content_bias_HK,
        None if r is None else r.distance_bias_HK,
        segment,
        None if r is None or segment is None else r.segment_bias_HK,
        s.place_U, s.limit_U, s.rank_S,
        None if segment is None else s.segment_U,
        None if segment is None else s.segment_S,
        s.content_bounds_R1, s.query_bounds_R1, s.key_bounds_R1, s.num_content, s.max_keys,
    )[0]  # fmt: skip
    return out_UHK


# Content and query states come as two tensors and stand one after the other in each row of a third, [H, B, P, K]: so
# the kernels see no slices, whose strides would ask for a compilation each.


@torch.compile(dynamic=True)
def _pack_(
    content_BTHK: Tensor, query_BQHK: Tensor, bias_HK: Tensor | None, out_HBPK: Tensor, bias2_HK: Tensor | None,
    out2_HBPK: Tensor | None,
) -> None:  # fmt: skip
    """The states head by head, with one bias added, and with another."""
    q_HBPK = torch.cat([content_BTHK, query_BQHK], dim=1).permute(2, 0, 1, 3)
    out_HBPK.copy_(q_HBPK if bias_HK is None else q_HBPK + bias_HK[:, None, None])
    if out2_HBPK is not None and bias2_HK is not None:
        out2_HBPK.copy_(q_HBPK + bias2_HK[:, None, None])


@torch.compile(dynamic=True)
def _segment_scores(content_HBPK: Tensor, shift_HK: Tensor, difference_HK: Tensor) -> Tensor:
    """What a key of another segment gets, fp32 [H, B, P]."""
    q = content_HBPK.float() + shift_HK.float()[:, None, None]
    return (q * difference_HK.float()[:, None, None]).sum(-1)


@torch.compile(dynamic=True)
def _softmax_(
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


@torch.compile(dynamic=True)
def _unpack_(content_BTHK: Tensor, query_BQHK: Tensor, out_HBPK: Tensor, inverse_HBP1: Tensor) -> None:
    """The outputs times the reciprocal sums, where they belong."""
    out_BPHK = (out_HBPK.float() * inverse_HBP1).permute(1, 2, 0, 3)
    content_BTHK.copy_(out_BPHK[:, : content_BTHK.shape[1]])
    query_BQHK.copy_(out_BPHK[:, content_BTHK.shape[1] :])


@torch.compile(dynamic=True)
def _pack_gradient_(
    content_BTHK: Tensor, query_BQHK: Tensor, inverse_HBP1: Tensor, plain_HBPK: Tensor, scaled_HBPK: Tensor
) -> None:
    """A gradient head by head, as it is and times the reciprocal sums."""
    grad_HBPK = torch.cat([content_BTHK, query_BQHK], dim=1).permute(2, 0, 1, 3)
    plain_HBPK.copy_(grad_HBPK)
    scaled_HBPK.copy_(grad_HBPK.float() * inverse_HBP1)


@torch.compile(dynamic=True)
def _softmax_backward_(weights_GJ: Tensor, inverse_G1: Tensor, grad_GJ: Tensor, scale: float) -> None:
    """Gradient of the probabilities to that of the unscaled scores, in place in `grad_GJ`."""
    p, g = weights_GJ.float() * inverse_G1, grad_GJ.float()
    grad_GJ.copy_(p * (g - (p * g).sum(-1, keepdim=True)) * scale)


@torch.compile(dynamic=True)
def _other_gradient(grad_HBPJ: Tensor, segment_BP: Tensor, segment_BJ: Tensor) -> Tensor:
    """Gradient of what keys of other segments get, fp32 [H, B, P]."""
    differs = segment_BP[:, :, None] != segment_BJ[:, None]
    return torch.where(differs[None], grad_HBPJ.float(), 0.0).sum(-1)


@torch.compile(dynamic=True)
def _distance_gradient_(grad_HBPL: Tensor, windows_HBPWL: Tensor, first_BP: Tensor, margin: int, num_keys: int) -> None:
    """The gradient of the scores, [H, B, P, J] with a margin around, to its place among all distances; 0 elsewhere."""
    found = _windows(windows_HBPWL, margin - first_BP)
    key_BPL = torch.arange(grad_HBPL.shape[-1])[None, None] - first_BP[:, :, None]
    grad_HBPL.copy_(torch.where(((key_BPL >= 0) & (key_BPL < num_keys))[None], found, 0.0))


@torch.compile(dynamic=True)
def _unpack_sum_(
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


class _Arena:
    """Hands out consecutive pieces of one flat buffer, in the same order on the way back."""

    def __init__(self, flat: Tensor) -> None:
        self._flat, self._used = flat, 0

    def take(self, *shape: int) -> Tensor:
        size = math.prod(shape)
        piece = self._flat[self._used : self._used + size].view(shape)
        self._used += size
        return piece


def _states(x_U: Tensor, group: RowGroup, num_content: int) -> tuple[Tensor, Tensor]:
    """A group's content states [B, T, ...] and query states [B, Q, ...] in a packed tensor: views."""
    first, count = group.first_content, group.num_rows * group.num_content
    content = x_U[first : first + count].unflatten(0, (group.num_rows, group.num_content))
    first, count = num_content + group.first_query, group.num_rows * group.num_queries
    return content, x_U[first : first + count].unflatten(0, (group.num_rows, group.num_queries))


@torch.library.custom_op("foundling::two_stream", mutates_args=())
def _forward(
    q_UHK: Tensor,
    k_SHK: Tensor,
    v_SHK: Tensor,
    distance_LHK: Tensor | None,
    content_bias_HK: Tensor | None,
    distance_bias_HK: Tensor | None,
    segment_2HK: Tensor | None,
    segment_bias_HK: Tensor | None,
    place_U: Tensor,
    limit_U: Tensor,
    rank_S: Tensor,
    segment_U: Tensor | None,
    segment_S: Tensor | None,
    content_bounds_R1: Tensor,
    query_bounds_R1: Tensor,
    key_bounds_R1: Tensor,
    num_content: int,
    max_keys: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    num_heads, width = q_UHK.shape[1:]
    out_UHK, *kept = _forward_buffers(q_UHK, k_SHK, distance_LHK, max_keys)
    weights, inverses, contents, distances, keys, values = map(_Arena, kept)
    table_HLK = None if distance_LHK is None else distance_LHK.transpose(0, 1).contiguous()
    for group in groups_of(content_bounds_R1, query_bounds_R1, key_bounds_R1):
        rows, num_states, num_keys = group.num_rows, group.num_content + group.num_queries, group.num_keys
        if not num_states:
            continue
        content = contents.take(num_heads, rows, num_states, width)
        k, v = (arena.take(num_heads, rows, num_keys, width) for arena in (keys, values))
        k.copy_(keys_of_rows(k_SHK, group).permute(2, 0, 1, 3))
        v.copy_(keys_of_rows(v_SHK, group).permute(2, 0, 1, 3))
        windows = other = None
        distance = None if table_HLK is None else distances.take(num_heads, rows, num_states, width)
        _pack_(*_states(q_UHK, group, num_content), content_bias_HK, content, distance_bias_HK, distance)
        if table_HLK is not None and distance is not None:
            by_distance = torch.bmm(distance.view(num_heads, -1, width), table_HLK.transpose(1, 2))
            windows = _windows_of(by_distance.view(num_heads, rows, num_states, -1), num_keys)
        if segment_2HK is not None:
            assert segment_bias_HK is not None
            assert content_bias_HK is not None
            other = _segment_scores(content, segment_bias_HK - content_bias_HK, segment_2HK[1] - segment_2HK[0])
        w = weights.take(num_heads * rows, num_states, num_keys)
        torch.bmm(content.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), out=w)
        inverse = inverses.take(num_heads, rows, num_states, 1)
        inverse.copy_(
            _softmax_(
                w.unflatten(0, (num_heads, rows)),
                windows,
                max_keys - 1 - of_rows(place_U, group, num_content),
                of_rows(limit_U, group, num_content),
                keys_of_rows(rank_S, group),
                other,
                None if segment_U is None else of_rows(segment_U, group, num_content),
                None if segment_S is None else keys_of_rows(segment_S, group),
                width**-0.5,
            )
        )
        out = torch.bmm(w, v.flatten(0, 1)).unflatten(0, (num_heads, rows))
        _unpack_(*_states(out_UHK, group, num_content), out, inverse)
    return out_UHK, *kept  # type: ignore[return-value]


def _windows_of(x_HBPL: Tensor, size: int) -> Tensor:
    """All runs of `size` neighbours in each last row, as one view [H, B, P, W, size] that overlaps itself."""
    return x_HBPL.as_strided((*x_HBPL.shape[:3], x_HBPL.shape[3] - size + 1, size), (*x_HBPL.stride()[:3], 1, 1))


def _forward_buffers(
    q_UHK: Tensor, k_SHK: Tensor, distance_LHK: Tensor | None, max_keys: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output, and what backward needs: weights, reciprocal sums, queries with either bias, keys, values."""
    num_states = q_UHK.shape[0] * q_UHK.shape[1]
    return (
        torch.empty_like(q_UHK, memory_format=torch.contiguous_format),
        q_UHK.new_empty(num_states * max_keys),
        q_UHK.new_empty(num_states, dtype=torch.float32),
        q_UHK.new_empty(q_UHK.numel()),
        q_UHK.new_empty(0 if distance_LHK is None else q_UHK.numel()),
        q_UHK.new_empty(k_SHK.numel()),
        q_UHK.new_empty(k_SHK.numel()),
    )


@_forward.register_fake
def _(  # type: ignore[no-untyped-def]
    q_UHK, k_SHK, v_SHK, distance_LHK, content_bias_HK, distance_bias_HK, segment_2HK, segment_bias_HK, place_U,
    limit_U, rank_S, segment_U, segment_S, content_bounds_R1, query_bounds_R1, key_bounds_R1, num_content, max_keys,
):  # fmt: skip
    return _forward_buffers(q_UHK, k_SHK, distance_LHK, max_keys)


@torch.library.custom_op("foundling::two_stream_backward", mutates_args=())
def _backward(
    grad_UHK: Tensor,
    weights: Tensor,
    inverses: Tensor,
    contents: Tensor,
    distances: Tensor,
    keys: Tensor,
    values: Tensor,
    distance_LHK: Tensor | None,
    content_bias_HK: Tensor | None,
    segment_2HK: Tensor | None,
    segment_bias_HK: Tensor | None,
    place_U: Tensor,
    segment_U: Tensor | None,
    segment_S: Tensor | None,
    content_bounds_R1: Tensor,
    query_bounds_R1: Tensor,
    key_bounds_R1: Tensor,
    num_content: int,
    max_keys: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    num_heads, width = grad_UHK.shape[1:]
    dq_UHK, dk_SHK, dv_SHK, *rest = _backward_buffers(grad_UHK, keys, distance_LHK, segment_2HK)
    d_table, d_content_bias, d_distance_bias, d_segment, d_segment_bias = rest
    arenas = [_Arena(x) for x in (weights, inverses, contents, distances, keys, values)]
    table_HLK = None if distance_LHK is None else distance_LHK.transpose(0, 1).contiguous()
    sums = _Sums()
    for group in groups_of(content_bounds_R1, query_bounds_R1, key_bounds_R1):
        rows, num_states, num_keys = group.num_rows, group.num_content + group.num_queries, group.num_keys
        if not num_states:
            keys_of_rows(dk_SHK, group).zero_()
            keys_of_rows(dv_SHK, group).zero_()
            continue
        content = arenas[2].take(num_heads, rows, num_states, width)
        k, v = (arena.take(num_heads, rows, num_keys, width) for arena in arenas[4:])
        w = arenas[0].take(num_heads * rows, num_states, num_keys)
        inverse = arenas[1].take(num_heads, rows, num_states, 1)
        grad, scaled = torch.empty_like(content), torch.empty_like(content)
        _pack_gradient_(*_states(grad_UHK, group, num_content), inverse, grad, scaled)
        dv = torch.bmm(w.transpose(1, 2), scaled.flatten(0, 1))
        around = _Around(w, max_keys, num_distances(max_keys))
        ds = torch.bmm(grad.flatten(0, 1), v.flatten(0, 1).transpose(1, 2), out=around.inner)
        _softmax_backward_(w.flatten(0, 1), inverse.view(-1, 1), ds.flatten(0, 1), width**-0.5)
        d_content = torch.bmm(ds, k.flatten(0, 1)).unflatten(0, (num_heads, rows))
        dk = torch.bmm(ds.transpose(1, 2), content.flatten(0, 1))
        d_distance = d_other = difference = None
        if segment_2HK is not None:
            assert segment_U is not None
            assert segment_S is not None
            assert segment_bias_HK is not None
            assert content_bias_HK is not None
            difference = segment_2HK[1] - segment_2HK[0]
            d_other = _other_gradient(
                ds.unflatten(0, (num_heads, rows)), of_rows(segment_U, group, num_content),
                keys_of_rows(segment_S, group),
            )  # fmt: skip
            shift_HK = (segment_bias_HK - content_bias_HK).float()
            total_H1 = d_other.flatten(1).sum(1, keepdim=True)
            by_state = torch.bmm(d_other.flatten(1)[:, None].to(content.dtype), content.flatten(1, 2))[:, 0]
            sums.add("segment", by_state.float() + total_H1 * shift_HK)
            sums.add("segment_bias", total_H1 * difference.float())
        if table_HLK is not None:
            distance = arenas[3].take(num_heads, rows, num_states, width)
            d_by_distance = ds.new_empty(num_heads, rows, num_states, table_HLK.shape[1])
            first_BP = max_keys - 1 - of_rows(place_U, group, num_content)
            windows = around.windows(num_heads, rows, num_states)
            _distance_gradient_(d_by_distance, windows, first_BP, around.margin, num_keys)
            d_by_distance = d_by_distance.flatten(1, 2)
            d_distance = torch.bmm(d_by_distance, table_HLK).view_as(content)
            sums.add("table", torch.bmm(d_by_distance.transpose(1, 2), distance.flatten(1, 2)))
            ones = ds.new_ones(num_heads, 1, rows * num_states)
            sums.add("content_bias", torch.bmm(ones, d_content.flatten(1, 2))[:, 0])
            sums.add("distance_bias", torch.bmm(ones, d_distance.flatten(1, 2))[:, 0])
        _unpack_sum_(*_states(dq_UHK, group, num_content), d_content, d_distance, d_other, difference)
        keys_of_rows(dk_SHK, group).copy_(dk.view_as(k).permute(1, 2, 0, 3))
        keys_of_rows(dv_SHK, group).copy_(dv.view_as(v).permute(1, 2, 0, 3))
    if table_HLK is not None:
        d_table.copy_(sums.found["table"].transpose(0, 1))
        d_content_bias.copy_(sums.found["content_bias"])
        d_distance_bias.copy_(sums.found["distance_bias"])
    if segment_2HK is not None:
        d_segment[1].copy_(sums.found["segment"])
        d_segment[0].copy_(-d_segment[1])
        d_segment_bias.copy_(sums.found["segment_bias"])
    return dq_UHK, dk_SHK, dv_SHK, d_table, d_content_bias, d_distance_bias, d_segment, d_segment_bias


class _Sums:
    """Gradients of what all groups share; fp32 once there are several."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        self.found[name] = value if name not in self.found else self.found[name].float() + value.float()


class _Around:
    """A buffer like the weights [Z, P, J] with room before and after, so that a run of L around any row is inside."""

    def __init__(self, like_ZPJ: Tensor, margin: int, num_distances: int) -> None:
        self.margin = -(-margin // 32) * 32
        self._length = num_distances
        size = like_ZPJ.numel()
        self._flat = like_ZPJ.new_empty(self.margin + size + num_distances)
        self.inner = self._flat[self.margin : self.margin + size].view(like_ZPJ.shape)

    def windows(self, num_heads: int, num_rows: int, num_states: int) -> Tensor:
        """Runs of L that start up to `margin` before each row: [H, B, P, margin + 1, L], a view."""
        step = self.inner.shape[-1]
        return self._flat.as_strided(
            (num_heads, num_rows, num_states, self.margin + 1, self._length),
            (num_rows * num_states * step, num_states * step, step, 1, 1),
        )


def _backward_buffers(
    grad_UHK: Tensor, keys: Tensor, distance_LHK: Tensor | None, segment_2HK: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    heads = grad_UHK.shape[1:]
    num_keys = keys.shape[0] // (heads[0] * heads[1])
    biases = (0,) if distance_LHK is None else heads
    return (
        torch.empty_like(grad_UHK, memory_format=torch.contiguous_format),
        keys.new_empty(num_keys, *heads),
        keys.new_empty(num_keys, *heads),
        keys.new_empty((0,) if distance_LHK is None else distance_LHK.shape),
        keys.new_empty(biases),
        keys.new_empty(biases),
        keys.new_empty((0,) if segment_2HK is None else segment_2HK.shape),
        keys.new_empty((0,) if segment_2HK is None else heads),
    )


@_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_UHK, weights, inverses, contents, distances, keys, values, distance_LHK, content_bias_HK, segment_2HK,
    segment_bias_HK, place_U, segment_U, segment_S, content_bounds_R1, query_bounds_R1, key_bounds_R1, num_content,
    max_keys,
):  # fmt: skip
    return _backward_buffers(grad_UHK, keys, distance_LHK, segment_2HK)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    (
        _, _, _, distance_LHK, content_bias_HK, _, segment_2HK, segment_bias_HK, place_U, _, _, segment_U, segment_S,
        content_bounds_R1, query_bounds_R1, key_bounds_R1, ctx.num_content, ctx.max_keys,
    ) = inputs  # fmt: skip
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(
        *output[1:], distance_LHK, content_bias_HK, segment_2HK, segment_bias_HK, place_U, segment_U, segment_S,
        content_bounds_R1, query_bounds_R1, key_bounds_R1,
    )  # fmt: skip


def _autograd(ctx, grad_UHK, *_):  # type: ignore[no-untyped-def]
    saved = ctx.saved_tensors
    dq, dk, dv, *rest = _backward(grad_UHK.contiguous(), *saved, ctx.num_content, ctx.max_keys)
    given = (saved[6], saved[7], saved[7], saved[8], saved[9])  # the table, the biases, the segments, their bias
    found = [None if like is None else grad for like, grad in zip(given, rest, strict=True)]
    return dq, dk, dv, *found, *[None] * 10


_forward.register_autograd(_autograd, setup_context=_setup_context)
