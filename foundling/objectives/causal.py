"""Causal language modelling: each token is predicted from those before it (Radford et al. 2018, section 3.1)."""

# Shapes: R = rows, T = tokens of a row, N = R x T, M = targets.

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foundling.core.config import PartConfig
from foundling.data.batch import Batch, rows_batch
from foundling.data.rows import Row
from foundling.models.base import Model
from foundling.optim.losses.linear_cross_entropy import linear_cross_entropy, linear_nll


class Config(PartConfig):
    kind: str = "causal"
    """Name of the part."""

    def build(self) -> "Causal":
        return Causal()


class Causal:
    extra_tokens = 1

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows of T + 1 tokens to inputs (the first T) and targets (the last T), a target at every position."""
        tokens_RT1 = torch.from_numpy(np.stack([row.tokens for row in rows]))
        return rows_batch(
            tokens_RT1[:, :-1],
            tokens_RT1[:, 1:],
            samples_R=tuple(row.sample for row in rows),
            sources_R=tuple(row.source for row in rows),
        )

    def loss(self, model: Model, batch: Batch, scale: float, compiled: bool) -> Tensor:
        out = model(batch)
        hidden = out.hidden_ND if batch.target_index_M is None else out.hidden_ND[batch.target_index_M]
        return linear_cross_entropy(hidden, out.head_weight_VD, batch.targets_M, scale, compiled)

    def token_losses(self, model: Model, batch: Batch) -> Tensor:
        out = model(batch)
        hidden = out.hidden_ND if batch.target_index_M is None else out.hidden_ND[batch.target_index_M]
        return linear_nll(hidden, out.head_weight_VD, batch.targets_M)
