"""Attention over packed rows: one call for every engine.

`attend` takes packed queries, keys and values and the rows' bounds. Three kernels stand behind it:
- `sdpa`: torch's fused attention, a call for each group of rows of one length. Runs anywhere.
- `blockwise`: our bf16 matrix products with compiled softmax between (see nn/blockwise.py). CPU training, where
  torch's fused backward is slow: 134 ms against 420 ms for 6 layers x 6 heads x 8192 tokens in rows of 256.
- `varlen`: torch's variable-length flash attention on the packed tokens as they lie. CUDA.
"""

# Shapes: N = packed tokens, H = query heads, G = key-value heads (G divides H), K = width of a head, R = rows,
# B = rows of one length, T = tokens of a row, S = keys in a cache.

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn

from foundling.data.batch import row_groups
from foundling.nn.blockwise import blockwise_attention

Kernel = Literal["sdpa", "blockwise", "varlen"]


def attend(
    q_NHK: Tensor,
    k_NGK: Tensor,
    v_NGK: Tensor,
    bounds_R1: Tensor,
    max_row_length: int,
    *,
    causal: bool,
    kernel: Kernel = "sdpa",
) -> Tensor:
    """softmax(q k^T / sqrt(K)) v within each row; [N, H, K] out. With `causal`, no token sees a later one."""
    if kernel == "varlen":
        return _varlen(q_NHK, k_NGK, v_NGK, bounds_R1, max_row_length, causal)
    if kernel == "blockwise":
        assert causal, "the blockwise kernel is causal"
        return blockwise_attention(q_NHK, k_NGK, v_NGK, bounds_R1, max_row_length)
    return _sdpa(q_NHK, k_NGK, v_NGK, bounds_R1, causal)


def _sdpa(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, bounds_R1: Tensor, causal: bool) -> Tensor:
    outputs = []
    for start, num_rows, length in row_groups(bounds_R1):
        span = slice(start, start + num_rows * length)
        q, k, v = (x[span].unflatten(0, (num_rows, length)).transpose(1, 2) for x in (q_NHK, k_NGK, v_NGK))
        grouped = q.shape[1] != k.shape[1]
        out_BHTK = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
        outputs.append(out_BHTK.transpose(1, 2).flatten(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _varlen(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, bounds_R1: Tensor, longest: int, causal: bool) -> Tensor:
    window = (-1, 0) if causal else (-1, -1)
    grouped = q_NHK.shape[1] != k_NGK.shape[1]
    out_NHK = varlen_attn(
        q_NHK, k_NGK, v_NGK, bounds_R1, bounds_R1, longest, longest, window_size=window, enable_gqa=grouped
    )
    assert isinstance(out_NHK, Tensor)
    return out_NHK


def attend_cached(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, visible_BTS: Tensor | None) -> Tensor:
    """T new tokens a row against S cached ones, the new included. visible_BTS: bool, or None: all. [B, H, T, K] out."""
    mask = None if visible_BTS is None else visible_BTS[:, None]
    grouped = q_BHTK.shape[1] != k_BGSK.shape[1]
    return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, enable_gqa=grouped)
