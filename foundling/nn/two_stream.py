"""Two-stream attention (Yang et al. 2019, arXiv:1906.08237, section 2.3) over packed rows.

Each row's tokens have a content state, which every token may see from, and some have a query state as well, which
knows where it stands but not what stands there. Who sees whom comes as no [T, T] mask but as two numbers: a key has
the rank of its token in the factorization order, a query a limit, and it sees the keys of ranks below its limit. So a
content state has its own rank + 1 as limit and a query state its own rank; without an order all ranks are 0. Rows stay
in the order of the text: there the scores by distance are a contiguous piece of a query's products with all distances,
which no gather by factorization order would leave them.

Both streams are one packed tensor: content states first, then query states. Keys and values are made once, from
content. Memory of other text is more keys, of the lowest rank. Two ways to compute it stand behind one call: plain
torch, for any device, which compares ranks with limits for all scores of a group of rows, and `blockwise`, for training
on CPU (nn/two_stream_blockwise.py).
"""

# Shapes: N = content states, M = query states, U = N + M states that look, S = keys, R = rows, H = heads, K = width of
# a head, L = distances, B = rows of one shape, T, Q = content and query states of each, P = T + Q, J = its keys.

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from foundling.nn.relative import Relative


@dataclass(frozen=True)
class Streams:
    """Which states look, which keys there are, and who sees whom. Bounds are int32 [R + 1] on the CPU."""

    content_bounds_R1: Tensor
    """Rows of the content states that look; all 0 where none do."""
    query_bounds_R1: Tensor
    """Rows of the query states, counted from the first query state."""
    key_bounds_R1: Tensor
    """Rows of the keys."""
    num_content: int
    """N."""
    max_keys: int
    """Keys of the longest row."""
    place_U: Tensor
    """Which of its row's keys each state's own token is (or would be), int64 [U]."""
    limit_U: Tensor
    """A state sees keys of ranks below it, int32 [U]."""
    rank_S: Tensor
    """Rank of each key, int32 [S]."""
    segment_U: Tensor | None = None
    """Segment of each state's token, int32 [U]; None: segments play no part."""
    segment_S: Tensor | None = None
    """Segment of each key, int32 [S]."""


@dataclass(frozen=True)
class RowGroup:
    """Consecutive rows of one shape."""

    num_rows: int
    first_content: int
    num_content: int
    """T: content states of each row."""
    first_query: int
    """Counted from the first query state."""
    num_queries: int
    """Q."""
    first_key: int
    num_keys: int
    """J."""


def groups_of(content_bounds_R1: Tensor, query_bounds_R1: Tensor, key_bounds_R1: Tensor) -> list[RowGroup]:
    """The rows of a batch in groups of one shape."""
    content, query, key = (bounds.tolist() for bounds in (content_bounds_R1, query_bounds_R1, key_bounds_R1))
    shapes = [
        (content[row + 1] - content[row], query[row + 1] - query[row], key[row + 1] - key[row])
        for row in range(len(content) - 1)
    ]
    firsts = [row for row, shape in enumerate(shapes) if not row or shape != shapes[row - 1]]
    return [
        RowGroup(end - row, content[row], shapes[row][0], query[row], shapes[row][1], key[row], shapes[row][2])
        for row, end in pairwise([*firsts, len(shapes)])
    ]


def of_rows(x_U: Tensor, group: RowGroup, num_content: int) -> Tensor:
    """A group's rows of a packed [U, ...], content states and then query states: [B, P, ...]."""
    first, count = group.first_content, group.num_rows * group.num_content
    content = x_U[first : first + count].unflatten(0, (group.num_rows, group.num_content))
    first, count = num_content + group.first_query, group.num_rows * group.num_queries
    query = x_U[first : first + count].unflatten(0, (group.num_rows, group.num_queries))
    return torch.cat([content, query], dim=1)


def keys_of_rows(x_S: Tensor, group: RowGroup) -> Tensor:
    """A group's rows of a packed [S, ...]: [B, J, ...]."""
    count = group.num_rows * group.num_keys
    return x_S[group.first_key : group.first_key + count].unflatten(0, (group.num_rows, group.num_keys))


def plain_two_stream(
    q_UHK: Tensor, k_SHK: Tensor, v_SHK: Tensor, streams: Streams, relative: Relative | None
) -> Tensor:
    """softmax(scores / sqrt(K)) v over the keys that each state sees, [U, H, K]; 0 for one that sees none.

    The scores are q k, and with `relative` what nn/relative.py says.
    """
    contents, queries = [], []
    for group in groups_of(streams.content_bounds_R1, streams.query_bounds_R1, streams.key_bounds_R1):
        q_BPHK, k_BJHK = of_rows(q_UHK, group, streams.num_content), keys_of_rows(k_SHK, group)
        scores_BHPJ = _scores(q_BPHK, k_BJHK, group, streams, relative).float() * q_UHK.shape[-1] ** -0.5
        limit_BP = of_rows(streams.limit_U, group, streams.num_content)
        seen_BHPJ = (keys_of_rows(streams.rank_S, group)[:, None] < limit_BP[:, :, None])[:, None]
        weights = torch.softmax(scores_BHPJ.masked_fill(~seen_BHPJ, -1e30), dim=-1)  # finite: no NaN where none is seen
        weights = weights * seen_BHPJ.any(-1, keepdim=True)
        out_BPHK = torch.einsum("bhpj,bjhk->bphk", weights.to(v_SHK.dtype), keys_of_rows(v_SHK, group))
        contents.append(out_BPHK[:, : group.num_content].flatten(0, 1))
        queries.append(out_BPHK[:, group.num_content :].flatten(0, 1))
    return torch.cat([*contents, *queries])


def _scores(q_BPHK: Tensor, k_BJHK: Tensor, group: RowGroup, streams: Streams, relative: Relative | None) -> Tensor:
    """Scores [B, H, P, J] of a group's rows, unscaled."""
    if relative is None:
        return torch.einsum("bphk,bjhk->bhpj", q_BPHK, k_BJHK)
    scores = torch.einsum("bphk,bjhk->bhpj", q_BPHK + relative.content_bias_HK, k_BJHK)
    by_distance = torch.einsum("bphk,lhk->bhpl", q_BPHK + relative.distance_bias_HK, relative.distance_LHK)
    first_BP = streams.max_keys - 1 - of_rows(streams.place_U, group, streams.num_content)
    index_BPJ = first_BP[:, :, None] + torch.arange(group.num_keys, device=first_BP.device)
    scores = scores + by_distance.gather(3, index_BPJ[:, None].expand_as(scores))
    if relative.segment_2HK is not None:
        assert streams.segment_U is not None, "the batch has no segments"
        assert streams.segment_S is not None
        assert relative.segment_bias_HK is not None
        own_BP = of_rows(streams.segment_U, group, streams.num_content)
        other_BPJ = own_BP[:, :, None] != keys_of_rows(streams.segment_S, group)[:, None]
        same, other = torch.einsum("bphk,ghk->gbhp", q_BPHK + relative.segment_bias_HK, relative.segment_2HK)
        scores = scores + torch.where(other_BPJ[:, None], other[..., None], same[..., None])
    return scores
