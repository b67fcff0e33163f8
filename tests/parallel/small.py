"""A small model of each mathematics, its batch, and what one process makes of them."""

from typing import Any

import torch
from torch import Tensor

from foundling.data.batch import Batch, rows_batch
from foundling.models.gpt import Config, Gpt
from foundling.objectives.base import Scale
from foundling.objectives.causal import Causal

VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {"math": "gpt2", "vocab_size": 53},
    "qwen3": {"kv_heads": 2, "vocab_size": 60},
    "llama": {"kv_heads": 2, "qk_norm": False, "tied": False, "vocab_size": 61},
}

ODD: dict[str, Any] = {"heads": 3, "kv_heads": 1, "mlp_width": 41, "vocab_size": 53}
"""Half of its queries, keys and values are two heads and a half, and no half of its MLP is like the other."""


def model(variant: str) -> Gpt:
    values = {"layers": 2, "width": 24, "heads": 4, "max_positions": 11, "mlp_width": 40, "init_std": 0.2}
    special = ODD if variant == "odd" else VARIANTS[variant]
    return Config.model_validate({**values, **special}).build()


def batch(rank: int = 0, size: int = 1) -> Batch:
    """This process's share of four rows of eleven tokens."""
    tokens = torch.randint(0, 53, (4, 12), generator=torch.Generator().manual_seed(2))
    mine = tokens[rank * 4 // size : (rank + 1) * 4 // size]
    return rows_batch(mine[:, :-1], mine[:, 1:])


def reference(variant: str) -> tuple[float, float, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradient norm, gradients and weights of one process."""
    net, rows = model(variant), batch()
    net.initialize(torch.Generator().manual_seed(0))
    loss = Causal().loss(net, rows, Scale(1 / rows.num_targets, 1 / rows.num_rows), False).parts["causal"]
    loss.backward()
    gradients = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    norm = torch.cat([g.flatten() for g in gradients.values()]).double().norm().item()
    return loss.item(), norm, gradients, {n: p.detach() for n, p in net.named_parameters()}
