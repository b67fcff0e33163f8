"""A target from its source, token by token, the right one given at each step (teacher forcing; Sutskever et al. 2014,
arXiv:1409.3215). Plain text becomes pairs by itself: a text cut in two, or spans cut out of it."""

# Shapes: R = rows, N = packed tokens of the targets, S = packed tokens of the sources.

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.units import Share
from foundling.data.batch import Batch
from foundling.data.order import Weights
from foundling.data.rows import Row, Stream
from foundling.data.spans import CutRows, SourceRow, Spans
from foundling.models.base import Model
from foundling.objectives._tokens import token_losses, token_nll
from foundling.objectives.base import Losses, Scale
from foundling.optim.losses.base import shape_of
from foundling.tokenizers.base import Tokenizer


class Config(PartConfig):
    kind: str = "seq2seq"
    """Name of the part."""
    loss: Annotated[PartConfig, Part("optim.losses")] | None = None
    """How wrong tokens are weighed in training: label_smoothing, focal, or cross_entropy with a z_loss; None: cross
    entropy. What is told of validation is always cross entropy."""
    pretext: Literal["prefix", "spans"] = "prefix"
    """What plain text is made into. prefix: its first part is the source, the rest the target. spans: the source is
    the text with short spans cut out, the target is what they held (T5), which needs sentinel tokens."""
    source_share: Annotated[Share, Field(gt=0, lt=1)] = 0.5
    """prefix: share of a row that is the source, in (0, 1)."""
    noise_density: Annotated[Share, Field(gt=0, lt=1)] = 0.15
    """spans: share of the tokens that is cut out, in (0, 1)."""
    mean_span_tokens: Annotated[float, Field(ge=1)] = 3.0
    """spans: mean length of what is cut out in one place, tokens, at least 1."""
    sentinel: Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")] = "<extra_id_{}>"
    """spans: the tokens that stand for what is cut out, `{}` for their number from 0; T5's names."""

    def build(self, tokenizer: Tokenizer) -> "Seq2Seq":
        return Seq2Seq(self, tokenizer)


def start_id(tokenizer: Tokenizer) -> int:
    """The id that a decoder reads first: bos, else the end token, as in BART."""
    return end_id(tokenizer) if tokenizer.bos_id is None else tokenizer.bos_id


def end_id(tokenizer: Tokenizer) -> int:
    """The id that ends sources and targets, and documents in a token store: eos, else sep."""
    found = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
    if found is None:
        raise UserError(
            "the tokenizer of an encoder-decoder must have an eos or sep token, which ends a source and a target",
            got="neither",
            do="train a tokenizer here, or name its token in tokenizer_config.json (eos_token)",
        )
    return found


class Seq2Seq:
    predicts_text = False

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        self._shape = shape_of(config.loss)
        self._config = config
        self.start_id, self.end_id = start_id(tokenizer), end_id(tokenizer)
        self._sentinels: list[int] = []
        while (found := tokenizer.id_of(config.sentinel.format(len(self._sentinels)))) is not None:
            self._sentinels.append(found)

    def samples(self, streams: Sequence[Stream], weights: Weights | None, *, row_length: int, seed: int) -> CutRows:
        """Stretches of text as pairs of one shape; source and target hold at most `row_length` tokens together."""
        config = self._config
        spans = Spans(config.noise_density, config.mean_span_tokens)
        text_tokens = row_length - 1 if config.pretext == "prefix" else spans.text_tokens(row_length)
        if text_tokens < 2:
            raise UserError(
                f"a row of pretext {config.pretext} must hold a source and a target",
                got=f"{row_length} tokens",
                do="set a larger train.sequence_length",
            )
        if config.pretext == "prefix":
            cut = self._cut_in_two
        else:
            sentinels = self._sentinel_ids(spans.counts(text_tokens)[1], row_length)
            cut = lambda tokens_T, rng: spans.cut(tokens_T, sentinels, self.end_id, rng)
        return CutRows(streams, weights, cut, text_tokens=text_tokens, row_length=row_length, seed=seed)

    def _cut_in_two(self, tokens_T: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The source ends with the end token; the target does not, for the text goes on."""
        place = min(max(1, round(self._config.source_share * len(tokens_T))), len(tokens_T) - 1)
        return np.append(tokens_T[:place], self.end_id), tokens_T[place:]

    def _sentinel_ids(self, number: int, row_length: int) -> np.ndarray:
        if len(self._sentinels) < number:
            names = [self._config.sentinel.format(i) for i in (0, number - 1)]
            raise UserError(
                f"pretext spans in rows of {row_length} tokens needs {number} sentinels in the tokenizer",
                got=f"{len(self._sentinels) or 'none'} of {names[0]} ... {names[1]}",
                do=f"train one with tokenizer.extra_tokens=[{names[0]}, ..., {names[1]}], or set pretext=prefix",
            )
        return np.array(self._sentinels[:number], dtype=np.int64)

    def pair(self, sample: int, source_ids: Sequence[int], target_ids: Sequence[int], source: int = 0) -> SourceRow:
        """A row of a given pair, such as a sentence and its translation; both sides get their end token.

        sample: its number in the data order; source: index of its data source.
        """
        ended = [np.array([*ids, self.end_id], dtype=np.int64) for ids in (source_ids, target_ids)]
        return SourceRow(sample, source, 0, ended[1], source_tokens=ended[0])

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Pairs to a batch: the decoder reads the start token and the target but its last, and is asked for all."""
        sources, targets = [], []
        for row in rows:
            assert isinstance(row, SourceRow), "rows of pairs: from `samples` or `pair`"
            sources.append(row.source_tokens)
            targets.append(row.tokens)
        inputs = [np.concatenate([[self.start_id], target[:-1]]) for target in targets]
        tokens_N, positions_N, bounds_R1, longest = _packed(inputs)
        source_tokens_S, source_positions_S, source_bounds_R1, max_source_length = _packed(sources)
        return Batch(
            tokens_N=tokens_N,
            positions_N=positions_N,
            bounds_R1=bounds_R1,
            max_row_length=longest,
            targets_M=torch.from_numpy(np.concatenate(targets)),
            samples_R=tuple(row.sample for row in rows),
            sources_R=tuple(row.source for row in rows),
            source_tokens_S=source_tokens_S,
            source_positions_S=source_positions_S,
            source_bounds_R1=source_bounds_R1,
            max_source_length=max_source_length,
        )

    def loss(self, model: Model, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        return token_losses("seq2seq", model(batch), batch, scale, compiled, self._shape)

    def scores(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        return {"loss": token_nll(model(batch), batch)}


def _packed(rows: list[np.ndarray]) -> tuple[Tensor, Tensor, Tensor, int]:
    """Tokens, positions and bounds of rows laid side by side, and the length of the longest."""
    lengths = [len(row) for row in rows]
    return (
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
        torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32)),
        max(lengths),
    )
