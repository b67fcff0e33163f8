"""How fused projections of queries, keys and values are laid out here and elsewhere."""

# Shapes: H = query heads, G = key-value heads, Q = H / G, K = width of a head.

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Heads(Protocol):
    """What a config says of its heads."""

    @property
    def heads(self) -> int: ...

    @property
    def groups(self) -> int: ...

    @property
    def key_width(self) -> int: ...


def fuse(qkv: Sequence[Tensor], config: Heads) -> Tensor:
    """Queries [H K, ...], keys and values [G K, ...] to one [(H + 2 G) K, ...] whose rows lie by key-value head."""
    grouped = [part.reshape(config.groups, -1, *part.shape[1:]) for part in qkv]
    return torch.cat(grouped, dim=1).flatten(0, 1)


def unfuse(fused: Tensor, config: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of `fuse`."""
    per_group = config.heads // config.groups
    rows = fused.reshape(config.groups, (per_group + 2) * config.key_width, *fused.shape[1:])
    q, k, v = rows.split([per_group * config.key_width, config.key_width, config.key_width], dim=1)
    return q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
