"""Two-stream attention for training on CPU, from batched matrix products and compiled kernels between them.

The same function as `plain_two_stream` (nn/two_stream.py), as nn/blockwise.py is that of plain attention: one opaque
operator, so that a compiled block around it depends on the number of states and keys alone.

Scores by distance cost one product of all queries with the table of all 2J - 1 distances. Keys stand in the order of
the text, so a query's scores for its J keys are J neighbours among those products, and the softmax kernel reads them
from where they start (128 x 128 scores: 0.64 ns each on one core, as from a fixed place; a gather: 1.4 ns). Backward
writes the gradient of the products the same way. Segments enter as the difference of "another" and "the same": what
all keys of a query share does not change its weights.

Whoever changes the arguments of either operator gives both a new name: compiled blocks are cached on disk by the
forward operator alone, and would call the backward one as it was.
"""

# Shapes: U = looking states, S = keys, H = heads, K = width of a head, L = distances, R = rows, B = rows of one shape,
# P = T + Q content and query states of each, J = its keys. [Z, ...] has heads and rows in one dimension.

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foundling.nn import _two_stream_kernels as kernels
from foundling.nn.relative import Relative, num_distances
from foundling.nn.two_stream import RowGroup, Streams, groups_of, keys_of_rows, of_rows


def blockwise_two_stream(
    q_UHK: Tensor, k_SHK: Tensor, v_SHK: Tensor, streams: Streams, relative: Relative | None
) -> Tensor:
    """softmax(scores / sqrt(K)) v over the keys that each state sees, [U, H, K]; 0 where it sees none."""
    r, s = relative, streams
    learned = (None,) * 5 if r is None else (
        r.distance_LHK, r.content_bias_HK, r.distance_bias_HK, r.segment_2HK, r.segment_bias_HK,
    )  # fmt: skip
    out_UHK: Tensor = _forward(
        q_UHK, k_SHK, v_SHK, *learned, s.place_U, s.limit_U, s.rank_S, s.segment_U, s.segment_S,
        s.content_bounds_R1, s.query_bounds_R1, s.key_bounds_R1, s.num_content, s.max_keys,
    )[0]  # fmt: skip
    return out_UHK


@dataclass(frozen=True)
class _Kept:
    """What backward needs of one group of rows."""

    weights_ZPJ: Tensor
    """exp(s - max), not normalised, in the type of the queries."""
    inverse_HBP1: Tensor
    """Reciprocal sums of the weights, fp32."""
    content_HBPK: Tensor
    """Queries with the bias for content (as they are, where positions are not relative)."""
    distance_HBPK: Tensor | None
    """Queries with the bias for distances."""
    keys_HBJK: Tensor
    values_HBJK: Tensor


def _cut(buffers: Sequence[Tensor], groups: Sequence[RowGroup], num_heads: int, width: int) -> Iterator[_Kept]:
    """Each group's pieces of the flat buffers, in the same order forward and backward."""
    used = [0] * len(buffers)

    def take(index: int, *shape: int) -> Tensor:
        size = math.prod(shape)
        used[index] += size
        return buffers[index][used[index] - size : used[index]].view(shape)

    for group in groups:
        rows, num_keys = group.num_rows, group.num_keys
        num_states = group.num_content + group.num_queries
        yield _Kept(
            take(0, num_heads * rows, num_states, num_keys),
            take(1, num_heads, rows, num_states, 1),
            take(2, num_heads, rows, num_states, width),
            take(3, num_heads, rows, num_states, width) if buffers[3].numel() else None,
            take(4, num_heads, rows, num_keys, width),
            take(5, num_heads, rows, num_keys, width),
        )


def _states(x_U: Tensor, group: RowGroup, num_content: int) -> tuple[Tensor, Tensor]:
    """A group's content states [B, T, ...] and query states [B, Q, ...] in a packed tensor: views."""
    first, count = group.first_content, group.num_rows * group.num_content
    content = x_U[first : first + count].unflatten(0, (group.num_rows, group.num_content))
    first, count = num_content + group.first_query, group.num_rows * group.num_queries
    return content, x_U[first : first + count].unflatten(0, (group.num_rows, group.num_queries))


def _first_of(streams: Streams, group: RowGroup) -> Tensor:
    """Where in the table each state's distances to its keys start, [B, P]."""
    return streams.max_keys - 1 - of_rows(streams.place_U, group, streams.num_content)


@torch.library.custom_op("foundling::two_stream_attention", mutates_args=())
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
    streams = Streams(
        content_bounds_R1, query_bounds_R1, key_bounds_R1, num_content, max_keys, place_U, limit_U, rank_S, segment_U,
        segment_S,
    )  # fmt: skip
    relative = _relative(distance_LHK, content_bias_HK, distance_bias_HK, segment_2HK, segment_bias_HK)
    out_UHK, *buffers = _forward_buffers(q_UHK, k_SHK, distance_LHK, max_keys)
    table_HLK = None if distance_LHK is None else distance_LHK.transpose(0, 1).contiguous()
    groups = groups_of(content_bounds_R1, query_bounds_R1, key_bounds_R1)
    for group, kept in zip(groups, _cut(buffers, groups, *q_UHK.shape[1:]), strict=True):
        if group.num_content + group.num_queries:
            kept.keys_HBJK.copy_(keys_of_rows(k_SHK, group).permute(2, 0, 1, 3))
            kept.values_HBJK.copy_(keys_of_rows(v_SHK, group).permute(2, 0, 1, 3))
            out_HBPK = _group_forward(q_UHK, group, kept, streams, relative, table_HLK)
            kernels.unpack_(*_states(out_UHK, group, num_content), out_HBPK, kept.inverse_HBP1)
    return out_UHK, *buffers  # type: ignore[return-value]


def _relative(
    distance_LHK: Tensor | None,
    content_bias_HK: Tensor | None,
    distance_bias_HK: Tensor | None,
    segment_2HK: Tensor | None,
    segment_bias_HK: Tensor | None,
) -> Relative | None:
    if distance_LHK is None:
        return None
    assert content_bias_HK is not None
    assert distance_bias_HK is not None
    return Relative(distance_LHK, segment_2HK, content_bias_HK, distance_bias_HK, segment_bias_HK)


def _group_forward(
    q_UHK: Tensor, group: RowGroup, kept: _Kept, streams: Streams, relative: Relative | None, table_HLK: Tensor | None
) -> Tensor:
    """The group's outputs [H, B, P, K], still to be divided by the sums of their weights; fills the rest of `kept`."""
    num_heads, num_rows, num_states, width = kept.content_HBPK.shape
    queries = _states(q_UHK, group, streams.num_content)
    windows = other = segment_BP = segment_BJ = None
    if relative is None or table_HLK is None or kept.distance_HBPK is None:
        kernels.pack_(*queries, None, kept.content_HBPK, None, None)
    else:
        kernels.pack_(
            *queries, relative.content_bias_HK, kept.content_HBPK, relative.distance_bias_HK, kept.distance_HBPK
        )
        by_distance = torch.bmm(kept.distance_HBPK.flatten(1, 2), table_HLK.transpose(1, 2))
        windows = kernels.windows_of(by_distance.view(num_heads, num_rows, num_states, -1), group.num_keys)
        if relative.segment_2HK is not None:
            shift_HK, difference_HK = _segment_terms(relative)
            other = kernels.segment_scores(kept.content_HBPK, shift_HK, difference_HK)
            segment_BP, segment_BJ = _segments(streams, group)
    torch.bmm(kept.content_HBPK.flatten(0, 1), kept.keys_HBJK.flatten(0, 1).transpose(1, 2), out=kept.weights_ZPJ)
    kept.inverse_HBP1.copy_(
        kernels.softmax_(
            kept.weights_ZPJ.unflatten(0, (num_heads, num_rows)),
            windows,
            _first_of(streams, group),
            of_rows(streams.limit_U, group, streams.num_content),
            keys_of_rows(streams.rank_S, group),
            other,
            segment_BP,
            segment_BJ,
            width**-0.5,
        )
    )
    return torch.bmm(kept.weights_ZPJ, kept.values_HBJK.flatten(0, 1)).unflatten(0, (num_heads, num_rows))


def _segment_terms(relative: Relative) -> tuple[Tensor, Tensor]:
    """What turns a query with the bias for content into one with that for segments; "another" less "the same"."""
    assert relative.segment_2HK is not None
    assert relative.segment_bias_HK is not None
    return relative.segment_bias_HK - relative.content_bias_HK, relative.segment_2HK[1] - relative.segment_2HK[0]


def _segments(streams: Streams, group: RowGroup) -> tuple[Tensor, Tensor]:
    assert streams.segment_U is not None
    assert streams.segment_S is not None
    return of_rows(streams.segment_U, group, streams.num_content), keys_of_rows(streams.segment_S, group)


def _forward_buffers(
    q_UHK: Tensor, k_SHK: Tensor, distance_LHK: Tensor | None, max_keys: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output, and flat room for what `_Kept` holds. Short rows use less: untouched pages cost nothing."""
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


@torch.library.custom_op("foundling::two_stream_attention_backward", mutates_args=())
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    streams = Streams(
        content_bounds_R1, query_bounds_R1, key_bounds_R1, num_content, max_keys, place_U, limit_U, rank_S, segment_U,
        segment_S,
    )  # fmt: skip
    relative = _relative(distance_LHK, content_bias_HK, distance_bias_HK, segment_2HK, segment_bias_HK)
    dq_UHK, dk_SHK, dv_SHK, *shared = _backward_buffers(grad_UHK, keys, distance_LHK, segment_2HK)
    table_HLK = None if distance_LHK is None else distance_LHK.transpose(0, 1).contiguous()
    buffers = (weights, inverses, contents, distances, keys, values)
    groups = groups_of(content_bounds_R1, query_bounds_R1, key_bounds_R1)
    sums = _Sums()
    for group, kept in zip(groups, _cut(buffers, groups, *grad_UHK.shape[1:]), strict=True):
        if group.num_content + group.num_queries:
            dk_HBJK, dv_HBJK = _group_backward(grad_UHK, dq_UHK, group, kept, streams, relative, table_HLK, sums)
            keys_of_rows(dk_SHK, group).copy_(dk_HBJK.permute(1, 2, 0, 3))
            keys_of_rows(dv_SHK, group).copy_(dv_HBJK.permute(1, 2, 0, 3))
        else:
            keys_of_rows(dk_SHK, group).zero_()
            keys_of_rows(dv_SHK, group).zero_()
    sums.write(*shared)
    return dq_UHK, dk_SHK, dv_SHK, *shared  # type: ignore[return-value]


def _group_backward(
    grad_UHK: Tensor,
    dq_UHK: Tensor,
    group: RowGroup,
    kept: _Kept,
    streams: Streams,
    relative: Relative | None,
    table_HLK: Tensor | None,
    sums: "_Sums",
) -> tuple[Tensor, Tensor]:
    """Gradients of the group's keys and values, [H, B, J, K]; those of its queries go into `dq_UHK`."""
    content, w = kept.content_HBPK, kept.weights_ZPJ
    heads_rows = content.shape[:2]
    grad, scaled = torch.empty_like(content), torch.empty_like(content)
    kernels.pack_gradient_(*_states(grad_UHK, group, streams.num_content), kept.inverse_HBP1, grad, scaled)
    dv = torch.bmm(w.transpose(1, 2), scaled.flatten(0, 1))
    around = _Around(w, streams.max_keys, num_distances(streams.max_keys))
    ds = torch.bmm(grad.flatten(0, 1), kept.values_HBJK.flatten(0, 1).transpose(1, 2), out=around.inner)
    kernels.softmax_backward_(
        w.flatten(0, 1), kept.inverse_HBP1.view(-1, 1), ds.flatten(0, 1), content.shape[-1] ** -0.5
    )
    d_content = torch.bmm(ds, kept.keys_HBJK.flatten(0, 1)).unflatten(0, heads_rows)
    dk = torch.bmm(ds.transpose(1, 2), content.flatten(0, 1))
    d_distance = d_other = difference_HK = None
    if relative is not None and table_HLK is not None:
        d_distance = _distances_backward(around, d_content, group, kept, streams, table_HLK, sums)
        if relative.segment_2HK is not None:
            shift_HK, difference_HK = _segment_terms(relative)
            d_other = kernels.other_gradient(ds.unflatten(0, heads_rows), *_segments(streams, group))
            total_H1 = d_other.flatten(1).sum(1, keepdim=True)
            by_state_HK = torch.bmm(d_other.flatten(1)[:, None].to(content.dtype), content.flatten(1, 2))[:, 0]
            sums.add("segment", by_state_HK.float() + total_H1 * shift_HK.float())
            sums.add("segment_bias", total_H1 * difference_HK.float())
    kernels.unpack_sum_(*_states(dq_UHK, group, streams.num_content), d_content, d_distance, d_other, difference_HK)
    return dk.unflatten(0, heads_rows), dv.unflatten(0, heads_rows)


def _distances_backward(
    around: "_Around",
    d_content_HBPK: Tensor,
    group: RowGroup,
    kept: _Kept,
    streams: Streams,
    table_HLK: Tensor,
    sums: "_Sums",
) -> Tensor:
    """Gradient [H, B, P, K] that the queries get from the scores by distance; those of table and biases to `sums`."""
    assert kept.distance_HBPK is not None
    shape = kept.distance_HBPK.shape[:3]
    d_by_distance = kept.distance_HBPK.new_empty(*shape, table_HLK.shape[1])
    kernels.distance_gradient_(
        d_by_distance, around.windows(*shape), _first_of(streams, group), around.margin, group.num_keys
    )
    d_by_distance = d_by_distance.flatten(1, 2)
    d_distance = torch.bmm(d_by_distance, table_HLK)
    sums.add("table", torch.bmm(d_by_distance.transpose(1, 2), kept.distance_HBPK.flatten(1, 2)))
    ones = d_distance.new_ones(shape[0], 1, d_distance.shape[1])
    sums.add("content_bias", torch.bmm(ones, d_content_HBPK.flatten(1, 2))[:, 0])
    sums.add("distance_bias", torch.bmm(ones, d_distance)[:, 0])
    return d_distance.view_as(d_content_HBPK)


class _Sums:
    """Gradients of what all groups share; fp32 once there are several."""

    def __init__(self) -> None:
        self._found: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        self._found[name] = value if name not in self._found else self._found[name].float() + value.float()

    def write(
        self,
        table_LHK: Tensor,
        content_bias_HK: Tensor,
        distance_bias_HK: Tensor,
        segment_2HK: Tensor,
        segment_bias_HK: Tensor,
    ) -> None:
        """The sums to where they belong; 0 where no state looked."""
        for target in (table_LHK, content_bias_HK, distance_bias_HK, segment_2HK, segment_bias_HK):
            target.zero_()
        if "table" in self._found:
            table_LHK.copy_(self._found["table"].transpose(0, 1))
            content_bias_HK.copy_(self._found["content_bias"])
            distance_bias_HK.copy_(self._found["distance_bias"])
        if "segment" in self._found:
            segment_2HK[1].copy_(self._found["segment"])
            segment_2HK[0].copy_(-segment_2HK[1])
            segment_bias_HK.copy_(self._found["segment_bias"])


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
    """Gradients of queries, keys, values; table, biases for content and distances, segments, their bias (or empty)."""
    heads = grad_UHK.shape[1:]
    num_keys = keys.shape[0] // (heads[0] * heads[1])
    nothing = (0,)
    return (
        torch.empty_like(grad_UHK, memory_format=torch.contiguous_format),
        keys.new_empty(num_keys, *heads),
        keys.new_empty(num_keys, *heads),
        keys.new_empty(nothing if distance_LHK is None else distance_LHK.shape),
        keys.new_empty(nothing if distance_LHK is None else heads),
        keys.new_empty(nothing if distance_LHK is None else heads),
        keys.new_empty(nothing if segment_2HK is None else segment_2HK.shape),
        keys.new_empty(nothing if segment_2HK is None else heads),
    )


@_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_UHK, weights, inverses, contents, distances, keys, values, distance_LHK, content_bias_HK, distance_bias_HK,
    segment_2HK, segment_bias_HK, place_U, limit_U, rank_S, segment_U, segment_S, content_bounds_R1, query_bounds_R1,
    key_bounds_R1, num_content, max_keys,
):  # fmt: skip
    return _backward_buffers(grad_UHK, keys, distance_LHK, segment_2HK)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.mark_non_differentiable(*output[1:])
    ctx.num_content, ctx.max_keys = inputs[16:]
    ctx.save_for_backward(*output[1:], *inputs[3:16])


def _autograd(ctx, grad_UHK, *_):  # type: ignore[no-untyped-def]
    saved = ctx.saved_tensors
    dq, dk, dv, *rest = _backward(grad_UHK.contiguous(), *saved, ctx.num_content, ctx.max_keys)
    learned = [None if given is None else grad for given, grad in zip(saved[6:11], rest, strict=True)]
    return dq, dk, dv, *learned, *[None] * 10


_forward.register_autograd(_autograd, setup_context=_setup_context)
