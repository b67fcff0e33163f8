"""Relative positions and relative segments in attention (Dai et al. 2019, arXiv:1901.02860, section 3.3; Yang et al.
2019, arXiv:1906.08237, section 2.5).

The score of query i for key j is the sum of (q + a) k, (q + b) R[distance] and (q + c) G[same segment or not], each
with its own learned bias of the query. R is a linear map of sinusoids of the signed distance, so there is no longest
row.
"""

# Shapes: L = distances, D = width of the model, H = heads, K = width of a head.

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUND = 32
"""The table's length is a multiple of this: matrix products of 255 columns are slower than those of 256."""


@dataclass(frozen=True)
class Relative:
    """What a layer adds to the scores of its queries and keys."""

    distance_LHK: Tensor
    """R: keys of the distances that `distance_table` lists."""
    segment_2HK: Tensor | None
    """G: keys of "same segment" and "another segment"; None: segments play no part."""
    content_bias_HK: Tensor
    """a, the original's r_w_bias."""
    distance_bias_HK: Tensor
    """b, r_r_bias."""
    segment_bias_HK: Tensor | None
    """c, r_s_bias; None where segments play no part."""


def num_distances(num_keys: int) -> int:
    """Rows L of the table for rows of so many keys: all distances between two of them, and some to round up."""
    return -(-(2 * num_keys - 1) // _ROUND) * _ROUND


def distance_table(num_keys: int, width: int, clamp: int | None, device: torch.device) -> Tensor:
    """Sinusoids [L, D] in fp32 of the distances num_keys - 1, num_keys - 2, ..., query minus key: the sines, then the
    cosines. clamp: distances beyond it count as it; None: none does."""
    distance_L = num_keys - 1.0 - torch.arange(num_distances(num_keys), dtype=torch.float32, device=device)
    if clamp is not None:
        distance_L = distance_L.clamp(-clamp, clamp)
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    angles = distance_L[:, None] * 10_000.0 ** -exponents[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
