"""Causal language modelling: each token is predicted from those before it (Radford et al. 2018, section 3.1).

With `prefix`, the first tokens of a row see each other, and only what follows them is predicted: a prefix language
model (Raffel et al. 2020, arXiv:1910.10683, section 3.2.1), which reads a prompt as an encoder does.
"""

# Shapes: R = rows, T = tokens of a row, N = R x T, M = targets.

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.units import Share
from foundling.data.batch import Batch, rows_batch
from foundling.data.order import Weights
from foundling.data.prefix import PrefixRow, PrefixRows
from foundling.data.rows import Row, Rows, Samples, Stream
from foundling.models.base import Model
from foundling.objectives._tokens import token_losses, token_nll
from foundling.objectives.base import Losses, Scale
from foundling.optim.losses.base import PLAIN, Shape, shape_of
from foundling.tokenizers.base import Tokenizer

PrefixShare = Annotated[Share, Field(ge=0, lt=1)]


class Config(PartConfig):
    kind: str = "causal"
    """Name of the part."""
    loss: Annotated[PartConfig, Part("optim.losses")] | None = None
    """How wrong tokens are weighed in training: label_smoothing, focal, or cross_entropy with a z_loss; None: cross
    entropy. What is told of validation is always cross entropy."""
    prefix: tuple[PrefixShare, PrefixShare] | None = None
    """Share of each row that is a prefix, in [0, 1): a number, or [least, largest], drawn for each row. None: none."""

    @field_validator("prefix", mode="before")
    @classmethod
    def _one_share(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("expected a share of each row such as 0.5, or [least, largest]")
        return (value, value) if isinstance(value, int | float | str) else value

    @field_validator("prefix")
    @classmethod
    def _rising(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"prefix must be [least, largest]; got {list(value)}")
        return value

    @property
    def implied(self) -> dict[str, Any]:
        """Fields of the model's config that follow from the objective: whether a prompt is read as a prefix."""
        return {"prefix": self.prefix is not None}

    def build(self, tokenizer: Tokenizer) -> "Causal":
        end_id = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
        return Causal(self.prefix, end_id, shape_of(self.loss))


class Causal:
    pseudo_likelihood = False

    def __init__(
        self, prefix: tuple[float, float] | None = None, end_id: int | None = None, shape: Shape = PLAIN
    ) -> None:
        """prefix: least and largest share of a row that is prefix. end_id: the token between documents. shape: of the
        loss."""
        self._prefix, self._end_id, self._shape = prefix, end_id, shape

    @property
    def predicts_text(self) -> bool:
        """Not with a prefix, which nobody predicts."""
        return self._prefix is None

    def samples(self, streams: Sequence[Stream], weights: Weights | None, *, row_length: int, seed: int) -> Samples:
        """Rows of T + 1 tokens: the last one is only a target."""
        if self._prefix is not None:
            return PrefixRows(streams, weights, row_length=row_length, shares=self._prefix, seed=seed)
        return Rows(streams, weights, row_length=row_length, extra_tokens=1, seed=seed)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows of T + 1 tokens to inputs (the first T) and targets (the last T), a target at every position.

        With prefixes, targets begin behind them: the last token of a prefix is the first to predict.
        """
        tokens_RT1 = torch.from_numpy(np.stack([row.tokens for row in rows]))
        batch = rows_batch(
            tokens_RT1[:, :-1],
            tokens_RT1[:, 1:],
            samples_R=tuple(row.sample for row in rows),
            sources_R=tuple(row.source for row in rows),
        )
        if self._prefix is None:
            return batch
        prefix_R = torch.tensor([row.prefix if isinstance(row, PrefixRow) else 0 for row in rows])
        index_M = (batch.positions_N.unflatten(0, (len(rows), -1)) >= prefix_R[:, None] - 1).flatten().nonzero()[:, 0]
        return replace(
            batch,
            targets_M=batch.targets_M[index_M],
            target_index_M=index_M,
            prefix_R=prefix_R.to(torch.int32),
        )

    def loss(self, model: Model, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        return token_losses("causal", model(batch), batch, scale, compiled, self._shape)

    def scores(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        return {"loss": token_nll(model(batch), batch)}

    def text_rows(self, length: int) -> tuple[int, int]:
        """(rows, tokens of a row) that a text of this many tokens becomes."""
        return 1, length

    def text_batch(self, texts: Sequence[np.ndarray], asked: Sequence[range] | None = None) -> Batch:
        """A row a text [T], behind an end token: its losses add up to -log of its probability."""
        assert asked is None, "one row tells of all tokens"
        if self._end_id is None:
            raise UserError("the tokenizer must have an eos or sep token: a text's first token is predicted from it")
        lengths = [len(text) for text in texts]
        before = [np.concatenate([[self._end_id], text[:-1]]) for text in texts]
        return Batch(
            tokens_N=torch.from_numpy(np.concatenate(before)),
            positions_N=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
            bounds_R1=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32),
            max_row_length=max(lengths),
            targets_M=torch.from_numpy(np.concatenate(texts)),
            sources_R=tuple(range(len(texts))),
        )
