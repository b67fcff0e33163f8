"""Word vectors from the words near each other: skip-gram (a word predicts each word around it) and CBOW (the mean of
the words around it predicts a word), told from noise (Mikolov et al. 2013, arXiv:1310.4546 and arXiv:1301.3781).

As in the original program: the window of each word is drawn from 1 to `window`, frequent words are left out of the
text by chance before windows are laid, noise follows counts to the power 0.75. Windows end with the document and at
the row's ends. Special tokens (unknown words too) are neither read nor predicted.
"""

# Shapes: N = packed tokens, M = targets, P = words that are left in, K = noise words, V = vocabulary, R = rows.

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.units import Count
from foundling.data.batch import Batch, rows_batch
from foundling.data.nearby import Nearby, NearbyRows, pairs_within
from foundling.data.order import Weights
from foundling.data.pairs import generator
from foundling.data.rows import Row, Samples, Stream
from foundling.models.base import Model
from foundling.objectives.base import Losses, Scale
from foundling.optim.losses.negative_sampling import negative_sampling, sampled_logits
from foundling.tokenizers.base import Tokenizer

_PURPOSE = 11
"""Which stream of a sample's random numbers is this objective's."""
_MOST_COUNTED_TOKENS = 50_000_000
"""Tokens that word counts are taken from."""
_COUNTED_PIECES = 64
"""Places of a longer text, evenly spread, that they are read at."""


class Config(PartConfig):
    kind: str = "word2vec"
    """Name of the part."""
    mode: Literal["skipgram", "cbow"] = "skipgram"
    """skipgram: a word predicts each word around it; better for rare words. cbow: the mean of the words around it
    predicts a word; about four times as fast."""
    window: Annotated[Count, Field(ge=1)] = 5
    """Words on each side at most; each word's own reach is drawn from 1 to this."""
    negatives: Annotated[Count, Field(ge=1)] = 5
    """Noise words for each target: 5 to 20 for little text, 2 to 5 for much (section 2.2)."""
    subsample: Annotated[float, Field(ge=0)] = 1e-3
    """A word whose share f of the text is larger is kept with probability sqrt(subsample / f) (section 2.3); 0: all
    words are kept. The paper: 1e-5, for a billion words."""
    noise_power: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Noise words are drawn by their counts to this power (section 2.2)."""

    def build(self, tokenizer: Tokenizer) -> "Word2Vec":
        return Word2Vec(self, tokenizer)


class Word2Vec:
    """Counts the words of the first streams that it is given, a run's training text, and keeps to these counts."""

    predicts_text = False
    pseudo_likelihood = False

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        self._config = config
        self._ordinary_V = np.ones(tokenizer.vocab_size, dtype=bool)
        self._ordinary_V[tokenizer.special_ids] = False
        end_id = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
        self._end_id = -1 if end_id is None else end_id
        self._kept_share_V = np.zeros(0)
        self._noise_V = np.zeros(0)

    def samples(self, streams: Sequence[Stream], weights: Weights | None, *, row_length: int, seed: int) -> Samples:
        """Rows of the text as it stands."""
        if len(self._noise_V) == 0:
            self._count(streams)
        return NearbyRows(streams, weights, row_length=row_length, seed=seed)

    def _count(self, streams: Sequence[Stream]) -> None:
        counts_V = np.zeros(len(self._ordinary_V), dtype=np.int64)
        each = max(1, _MOST_COUNTED_TOKENS // len(streams))
        for stream in streams:
            whole = stream.num_tokens <= each
            size = stream.num_tokens if whole else max(1, each // _COUNTED_PIECES)
            for start in np.linspace(0, stream.num_tokens - size, 1 if whole else _COUNTED_PIECES, dtype=np.int64):
                counts_V += np.bincount(stream.read(int(start), size), minlength=len(counts_V))
        counts_V[~self._ordinary_V] = 0
        if not counts_V.any():
            raise UserError("the text must hold words that the tokenizer knows", got="none")
        share_V = counts_V / counts_V.sum()
        bound = self._config.subsample or np.inf
        self._kept_share_V = np.minimum(1.0, np.sqrt(bound / np.maximum(share_V, 1e-12)))
        self._kept_share_V[~self._ordinary_V] = 0.0
        noise_V = np.where(counts_V > 0, counts_V.astype(np.float64) ** self._config.noise_power, 0.0)
        self._noise_V = np.cumsum(noise_V) / noise_V.sum()

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Targets row by row, each with its noise; what is left out and drawn follows from the rows' keys."""
        tokens_RT = np.stack([row.tokens for row in rows])
        chances = [generator(row.key, _PURPOSE) for row in rows]
        near = self._near(tokens_RT, chances)
        per_row_R = np.bincount(near.centers_M // tokens_RT.shape[1], minlength=len(rows))
        drawn = [rng.random((n, self._config.negatives)) for rng, n in zip(chances, per_row_R, strict=True)]
        noise_MK = np.searchsorted(self._noise_V, np.concatenate(drawn), side="right")
        noise_MK = np.minimum(noise_MK, len(self._noise_V) - 1)
        tokens_N = tokens_RT.reshape(-1)
        batch = rows_batch(
            torch.from_numpy(tokens_RT), torch.from_numpy(tokens_RT),
            samples_R=tuple(row.sample for row in rows), sources_R=tuple(row.source for row in rows),
        )  # fmt: skip
        bags = near.starts_M is not None
        return replace(
            batch,
            targets_M=torch.from_numpy(tokens_N[near.centers_M if bags else near.contexts_C]),
            target_index_M=torch.from_numpy(near.centers_M),
            negatives_MK=torch.from_numpy(noise_MK),
            context_index_C=torch.from_numpy(near.contexts_C) if bags else None,
            context_starts_M=None if near.starts_M is None else torch.from_numpy(near.starts_M),
        )

    def _near(self, tokens_RT: np.ndarray, chances: Sequence[np.random.Generator]) -> Nearby:
        """Which words are targets, and which words are near them."""
        num_rows, length = tokens_RT.shape
        kept_N = np.concatenate([rng.random(length) for rng in chances]) < self._kept_share_V[tokens_RT].reshape(-1)
        reach_N = np.concatenate([rng.integers(1, self._config.window + 1, length) for rng in chances])
        ends_RT = np.cumsum(tokens_RT == self._end_id, axis=1) + np.arange(num_rows)[:, None] * (length + 1)
        places_P = np.flatnonzero(kept_N)
        near = pairs_within(ends_RT.reshape(-1)[places_P], reach_N[places_P], self._config.window)
        near = Nearby(places_P[near.centers_M], places_P[near.contexts_C])
        return near.bags() if self._config.mode == "cbow" else near

    def loss(self, model: Model, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        out = model(batch)
        assert batch.negatives_MK is not None
        losses_M = negative_sampling(out.hidden_MD, out.head_weight_VD, batch.targets_M, batch.negatives_MK)
        return Losses({self._config.mode: losses_M.sum() * scale.per_target}, losses_M.detach())

    def scores(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """`above_noise`: share of its noise words that a target is held more likely than; 0.5 is chance."""
        out = model(batch)
        assert batch.negatives_MK is not None
        words = (batch.targets_M, batch.negatives_MK)
        with torch.no_grad():
            losses_M = negative_sampling(out.hidden_MD, out.head_weight_VD, *words)
            logits_MS = sampled_logits(out.hidden_MD, out.head_weight_VD, *words)
            above_M = (logits_MS[:, :1] > logits_MS[:, 1:]).float().mean(1)
        return {"loss": losses_M, "above_noise": above_M}
