"""Causal language modelling: each token is predicted from those before it (Radford et al. 2018, section 3.1)."""

# Shapes: R = rows, T = tokens of a row, N = R x T, M = targets.

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foundling.core.config import PartConfig
from foundling.data.batch import Batch, rows_batch
from foundling.data.rows import Row, Rows, Stream
from foundling.models.base import Model
from foundling.objectives.base import Scale
from foundling.optim.losses.linear_cross_entropy import linear_cross_entropy, linear_nll
from foundling.tokenizers.base import Tokenizer


class Config(PartConfig):
    kind: str = "causal"
    """Name of the part."""

    def build(self, tokenizer: Tokenizer) -> "Causal":
        return Causal()


class Causal:
    predicts_text = True

    def samples(
        self, streams: Sequence[Stream], weights: Sequence[float] | None, *, row_length: int, seed: int
    ) -> Rows:
        """Rows of T + 1 tokens: the last one is only a target."""
        return Rows(streams, weights, row_length=row_length, extra_tokens=1, seed=seed)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows of T + 1 tokens to inputs (the first T) and targets (the last T), a target at every position."""
        tokens_RT1 = torch.from_numpy(np.stack([row.tokens for row in rows]))
        return rows_batch(
            tokens_RT1[:, :-1],
            tokens_RT1[:, 1:],
            samples_R=tuple(row.sample for row in rows),
            sources_R=tuple(row.source for row in rows),
        )

    def loss(self, model: Model, batch: Batch, scale: Scale, compiled: bool) -> dict[str, Tensor]:
        out = model(batch)
        loss = linear_cross_entropy(
            out.hidden_MD, out.head_weight_VD, batch.targets_M, scale.per_target, compiled, out.head_bias_V
        )
        return {"causal": loss}

    def scores(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        out = model(batch)
        return {"loss": linear_nll(out.hidden_MD, out.head_weight_VD, batch.targets_M, out.head_bias_V)}
