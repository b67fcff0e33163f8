"""Attention over packed rows: one call for every engine.

`attend` takes packed queries, keys and values and the rows' bounds. Four kernels stand behind it:
- `sdpa`: torch's fused attention, a call for each group of rows of one length. Runs anywhere.
- `rows`: all rows in one call of our own C++ (see nn/row_attention.py). CPU.
- `blockwise`: our bf16 matrix products with compiled softmax between (see nn/blockwise.py). CPU training of long rows
  where the processor multiplies bf16 matrices itself, and where no C++ kernel can be made: torch's fused backward is
  slow, 420 ms against 134 ms for 6 layers x 6 heads x 8192 tokens in rows of 256.
- `varlen`: torch's variable-length flash attention on the packed tokens as they lie. CUDA, bf16 (prefixes go to sdpa).
"""

# Shapes: N = packed tokens, M = packed tokens whose keys are read (the same N but in cross attention), H = query heads,
# G = key-value heads (G divides H), K = width of a head, R = rows, B = rows of one length, T = tokens of a row,
# S = keys in a cache.

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from foundling.data.batch import row_pairs
from foundling.nn.blockwise import blockwise_attention
from foundling.nn.row_attention import knows_type, row_attention

Kernel = Literal["auto", "sdpa", "rows", "blockwise", "varlen"]
"""`auto`: as each call finds its tensors, `rows` or else `sdpa`; what training chooses is fixed."""

_ROWS_WIN_UP_TO = 128
"""Tokens of a row up to which `rows` is taken where products in bf16 are many times as fast as in fp32 (AMX)."""


def training_kernel(device: torch.device, dtype: torch.dtype, max_row_length: int, *, compiled: bool) -> Kernel:
    """The fastest kernel for a model that computes in `dtype`. compiled: whether the compiler may be called."""
    if device.type == "cuda":
        return "varlen" if dtype in (torch.bfloat16, torch.float16) else "sdpa"  # flash attention knows no fp32
    fast_bf16 = dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    if knows_type(dtype) and not (compiled and fast_bf16 and max_row_length > _ROWS_WIN_UP_TO):
        return "rows"
    return "blockwise" if compiled else "sdpa"


def attend(
    q_NHK: Tensor,
    k_MGK: Tensor,
    v_MGK: Tensor,
    bounds_R1: Tensor,
    max_row_length: int,
    *,
    causal: bool,
    window: int | None = None,
    prefix_R: Tensor | None = None,
    k_bounds_R1: Tensor | None = None,
    max_k_length: int | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """softmax(q k^T / sqrt(K)) v within each row; [N, H, K] out.

    causal: no token sees a later one; but with prefix_R (int [R], on CPU) the first tokens of each row, so many, are
    seen by all of its tokens. window: tokens further than window // 2 away are not seen. k_bounds_R1, max_k_length:
    the keys of row i are those of another packed sequence (cross attention); such rows take neither causal nor window.
    """
    other = k_bounds_R1 is not None
    assert not (other and (causal or window is not None)), "causal and local attention are of a row to itself"
    assert prefix_R is None or causal, "a prefix makes part of a causal row visible to all of it"
    k_bounds = bounds_R1 if k_bounds_R1 is None else k_bounds_R1
    longest = max_row_length if max_k_length is None else max_k_length
    if kernel == "auto":
        kernel = "rows" if q_NHK.device.type == "cpu" and knows_type(q_NHK.dtype) else "sdpa"
    if kernel == "varlen" and prefix_R is None:
        return _varlen(q_NHK, k_MGK, v_MGK, bounds_R1, k_bounds, max_row_length, longest, causal, window)
    if kernel in ("rows", "blockwise"):
        own = row_attention if kernel == "rows" else blockwise_attention
        return own(q_NHK, k_MGK, v_MGK, bounds_R1, k_bounds, longest, causal=causal, window=window, prefix_R=prefix_R)
    return _sdpa(q_NHK, k_MGK, v_MGK, bounds_R1, k_bounds, causal, window, prefix_R)


def _sdpa(
    q_NHK: Tensor,
    k_MGK: Tensor,
    v_MGK: Tensor,
    bounds_R1: Tensor,
    k_bounds_R1: Tensor,
    causal: bool,
    window: int | None,
    prefix_R: Tensor | None,
) -> Tensor:
    outputs = []
    for group in row_pairs(bounds_R1, k_bounds_R1):
        q = _heads_first(q_NHK, group.first_query, group.num_rows, group.num_queries)
        k, v = (_heads_first(x, group.first_key, group.num_rows, group.num_keys) for x in (k_MGK, v_MGK))
        prefix = None if prefix_R is None else prefix_R[group.first_row : group.first_row + group.num_rows]
        mask = None
        if window is not None or prefix is not None:
            mask = _visible(group.num_queries, causal, window, prefix).to(q.device)
        plain = causal and mask is None
        grouped = q.shape[1] != k.shape[1]
        out_BHTK = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=plain, enable_gqa=grouped)
        outputs.append(out_BHTK.transpose(1, 2).flatten(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _heads_first(x_NHK: Tensor, start: int, num_rows: int, length: int) -> Tensor:
    """Rows of one length as [B, H, T, K]."""
    return x_NHK[start : start + num_rows * length].unflatten(0, (num_rows, length)).transpose(1, 2)


def _visible(length: int, causal: bool, window: int | None, prefix_B: Tensor | None) -> Tensor:
    """Which key (last) each query sees, bool [1 or B, 1, T, T]."""
    query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
    seen = key <= query if causal else torch.ones(length, length, dtype=torch.bool)
    seen = seen[None]
    if prefix_B is not None:
        seen = seen | (key[None] < prefix_B.cpu()[:, None, None])
    if window is not None:
        seen = seen & ((query - key).abs() <= window // 2)[None]
    return seen[:, None]


def _varlen(
    q_NHK: Tensor,
    k_MGK: Tensor,
    v_MGK: Tensor,
    bounds_R1: Tensor,
    k_bounds_R1: Tensor,
    longest: int,
    longest_keys: int,
    causal: bool,
    window: int | None,
) -> Tensor:
    span = -1 if window is None else window // 2
    grouped = q_NHK.shape[1] != k_MGK.shape[1]
    from torch.nn.attention.varlen import varlen_attn  # a second to import, and of use on CUDA alone

    out_NHK = varlen_attn(
        q_NHK, k_MGK, v_MGK, bounds_R1, k_bounds_R1, longest, longest_keys,
        window_size=(span, 0 if causal else span), enable_gqa=grouped,
    )  # fmt: skip
    assert isinstance(out_NHK, Tensor)
    return out_NHK


def attend_cached(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, visible_BTS: Tensor | None) -> Tensor:
    """T new tokens a row against S cached ones, the new included. visible_BTS: bool, or None: all. [B, H, T, K] out."""
    mask = None if visible_BTS is None else visible_BTS[:, None]
    grouped = q_BHTK.shape[1] != k_BGSK.shape[1]
    return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, enable_gqa=grouped)
