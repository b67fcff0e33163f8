"""Masked language modelling: some tokens are hidden and predicted from both sides (Devlin et al. 2019, section 3.1).

Masks are drawn anew each time a row is read (Liu et al. 2019, arXiv:1907.11692, section 4.1). Logits are made at the
chosen positions alone. With `next`, rows are pairs of segments and a question about them is asked beside.
"""

# Shapes: R = rows, N = packed tokens, M = chosen positions, V = vocabulary, D = width, T = tokens of a text, Q = those
# asked for.

from collections.abc import Sequence
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.log import warn_once
from foundling.core.units import Share
from foundling.data.batch import Batch
from foundling.data.order import Weights
from foundling.data.pairs import Marks, Pairs, Segments, generator
from foundling.data.rows import Row, Samples
from foundling.models.base import Model
from foundling.objectives._masking import Masker, Unit
from foundling.objectives._tokens import token_losses
from foundling.objectives._words import ChineseWords, Starts, closing_marks, sentence_ends, word_starts
from foundling.objectives.base import Losses, Scale
from foundling.objectives.next.base import NextConfig
from foundling.optim.losses.base import shape_of
from foundling.optim.losses.linear_cross_entropy import BUFFER_BYTES
from foundling.tokenizers.base import Tokenizer


class Config(PartConfig):
    kind: str = "mlm"
    """Name of the part."""
    loss: Annotated[PartConfig, Part("optim.losses")] | None = None
    """How wrong tokens are weighed in training: label_smoothing, focal, or cross_entropy with a z_loss; None: cross
    entropy. What is told of validation is always cross entropy."""
    mask_rate: Annotated[Share, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that are predicted, in (0, 1); each row has at least one. Special tokens do not count."""
    mask_share: Annotated[Share, Field(ge=0, le=1)] = 0.8
    """Share of the predicted tokens that are replaced by [MASK]."""
    random_share: Annotated[Share, Field(ge=0, le=1)] = 0.1
    """Share that are replaced by a random token; the rest stay as they are."""
    unit: Unit = "token"
    """What is chosen: a token; a whole word; a span of words, replaced alike (SpanBERT, without its boundary task)."""
    span_end_rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    """span: chance that a span ends after a word, so lengths are geometric (of 0.2 with at most 10: 4.5 words in the
    mean; SpanBERT's, drawn again instead of cut at 10, 3.8)."""
    longest_span: Annotated[int, Field(ge=1)] = 10
    """span: most words of a span."""
    chinese_words: bool = False
    """word, span: Chinese characters fall into words as jieba finds them (extra `chinese`); else each is a word."""
    next: Annotated[PartConfig, Part("objectives.next")] | None = None
    """What is asked about pairs of segments: {kind: nsp} or {kind: sop}, with its weight; None: rows are one text."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"mask_share and random_share must not exceed 1 together; got {self.mask_share} + {self.random_share}"
            )
        if self.chinese_words and self.unit == "token":
            raise ValueError("chinese_words needs unit: word or span; got unit: token")
        return self

    @property
    def implied(self) -> dict[str, Any]:
        """What the family's config must say, so that the model has the heads that the losses read, and no others."""
        return {"top": "masked" if self.next is None else "pretraining"}

    def build(self, tokenizer: Tokenizer) -> "Mlm":
        return Mlm(self, tokenizer)


class Mlm:
    predicts_text = False
    pseudo_likelihood = True

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        self._config, self._shape = config, shape_of(config.loss)
        ids = {role: getattr(tokenizer, f"{role}_id") for role in ("mask", "cls", "sep")}
        if missing := [role for role, token_id in ids.items() if token_id is None]:
            raise UserError(
                "objective mlm needs a tokenizer with the special tokens mask, cls and sep",
                got=f"none for {', '.join(missing)}",
                do="train one of kind wordpiece, or give special_tokens: {mask: '[MASK]', cls: '[CLS]', sep: '[SEP]'}",
            )
        assert config.next is None or isinstance(config.next, NextConfig)
        self._next = config.next
        self._cls_id, self._sep_id = ids["cls"], ids["sep"]
        asked = self._next is not None
        self._marks = Marks(
            cls_id=ids["cls"],
            sep_id=ids["sep"],
            end_ids=frozenset(i for i in (tokenizer.eos_id, tokenizer.sep_id) if i is not None),
            sentence_end_V=sentence_ends(tokenizer) if asked else None,
            closing_V=closing_marks(tokenizer) if asked else None,
        )
        ordinary_ids = np.setdiff1d(np.arange(tokenizer.vocab_size), tokenizer.special_ids)
        self._mask = Masker(
            rate=config.mask_rate, mask_share=config.mask_share, random_share=config.random_share, unit=config.unit,
            span_end_rate=config.span_end_rate, longest_span=config.longest_span, mask_id=ids["mask"],
            ordinary_ids=ordinary_ids, vocab_size=tokenizer.vocab_size, starts=_starts(config, tokenizer),
        )  # fmt: skip

    def samples(self, streams: Sequence[Any], weights: Weights | None, *, row_length: int, seed: int) -> Samples:
        """Pieces of documents, or pairs of pieces where a question is asked; see data/pairs.py."""
        if self._config.mask_rate * row_length < 1:
            warn_once(
                f"objective.mask_rate {self._config.mask_rate:g} asks for less than one token of a row of "
                f"{row_length}: one is predicted in each"
            )
        if self._next is None:
            return Segments(streams, weights, row_length=row_length, seed=seed, marks=self._marks)
        question = self._next.build()
        return Pairs(
            streams, weights, row_length=row_length, seed=seed, marks=self._marks, twist=question.twist,
            what=self._next.kind, other_documents=question.other_documents,
            whole_sentences=question.whole_sentences, short_rate=self._next.short_rate, shortest=self._next.shortest,
        )  # fmt: skip

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows to a packed batch whose targets are the tokens that were replaced. A row's mask depends on its key."""
        tokens, targets, places = [], [], []
        start = 0
        for row in rows:
            fixed_T = (row.tokens == self._cls_id) | (row.tokens == self._sep_id)
            replaced_T, chosen = self._mask(row.tokens, fixed_T, generator(row.key, 1))
            tokens.append(replaced_T)
            targets.append(row.tokens[chosen])
            places.append(chosen + start)
            start += len(row.tokens)
        lengths = [len(row.tokens) for row in rows]
        segments = [row.segments for row in rows if row.segments is not None]
        labels = [row.label for row in rows if row.label is not None]
        return Batch(
            tokens_N=torch.from_numpy(np.concatenate(tokens)),
            positions_N=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
            bounds_R1=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32),
            max_row_length=max(lengths),
            targets_M=torch.from_numpy(np.concatenate(targets)),
            target_index_M=torch.from_numpy(np.concatenate(places)),
            segments_N=torch.from_numpy(np.concatenate(segments)) if segments else None,
            samples_R=tuple(row.sample for row in rows),
            sources_R=tuple(row.source for row in rows),
            labels_R=torch.tensor(labels) if labels else None,
        )

    def loss(self, model: Model, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        out = model(batch)
        losses = token_losses("mlm", out, batch, scale, compiled, self._shape)
        if self._next is not None:
            nll_R = _next_nll(out.next_logits_RC, batch)
            losses.parts[self._next.kind] = nll_R.sum() * (self._next.weight * scale.per_row)
        return losses

    def scores(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """`loss`, the masked-language loss of each target; `mlm_accuracy`, whether it is the likeliest token; and
        where a question is asked, `next_loss` and `next_accuracy` of each row."""
        with torch.no_grad():
            out = model(batch)
            step = max(1, BUFFER_BYTES // (out.head_weight_VD.shape[0] * 4))
            losses, hits = [], []
            for hidden, targets in zip(out.hidden_MD.split(step), batch.targets_M.split(step), strict=True):
                logits = F.linear(hidden, out.head_weight_VD, out.head_bias_V).float()
                losses.append(F.cross_entropy(logits, targets, reduction="none"))
                hits.append((logits.argmax(-1) == targets).float())
            found = {"loss": torch.cat(losses), "mlm_accuracy": torch.cat(hits)}
            if self._next is not None:
                assert out.next_logits_RC is not None
                assert batch.labels_R is not None
                found["next_loss"] = _next_nll(out.next_logits_RC, batch)
                found["next_accuracy"] = out.next_logits_RC.argmax(-1).eq(batch.labels_R).float()
            return found

    def text_rows(self, length: int) -> tuple[int, int]:
        """(rows, tokens of a row) that a text of this many tokens becomes."""
        return length, length + 2

    def text_batch(self, texts: Sequence[np.ndarray], asked: Sequence[range] | None = None) -> Batch:
        """T rows of a text [T], each with one token hidden: the losses add up to the negative pseudo-log-likelihood.
        asked: the tokens to hide of each text; None: all."""
        asked = [range(len(text)) for text in texts] if asked is None else asked
        rows, targets, places, start = [], [], [], 0
        for text, hidden in zip(texts, asked, strict=True):
            row_QT = np.tile(np.concatenate([[self._cls_id], text, [self._sep_id]]), (len(hidden), 1))
            own, at = np.arange(len(hidden)), np.array(hidden)
            row_QT[own, at + 1] = self._mask.mask_id
            rows.append(row_QT.ravel())
            targets.append(text[at])
            places.append(start + own * row_QT.shape[1] + at + 1)
            start += row_QT.size
        num_rows = [len(hidden) for hidden in asked]
        lengths = np.repeat([len(text) + 2 for text in texts], num_rows)
        return Batch(
            tokens_N=torch.from_numpy(np.concatenate(rows)),
            positions_N=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
            bounds_R1=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32),
            max_row_length=int(lengths.max()),
            targets_M=torch.from_numpy(np.concatenate(targets)),
            target_index_M=torch.from_numpy(np.concatenate(places)),
            segments_N=torch.zeros(start, dtype=torch.int64),
            sources_R=tuple(np.repeat(np.arange(len(texts)), num_rows).tolist()),
        )


def _next_nll(logits_RC: Tensor | None, batch: Batch) -> Tensor:
    assert logits_RC is not None, "the model must have a next-sentence head"
    assert batch.labels_R is not None
    return F.cross_entropy(logits_RC.float(), batch.labels_R, reduction="none")


def _starts(config: Config, tokenizer: Tokenizer) -> Starts | None:
    """Which tokens of a row begin a word, as a function of its ids; None where no one asks."""
    if config.unit == "token":
        return None
    starts = word_starts(tokenizer)
    if not config.chinese_words:
        return starts
    chinese = ChineseWords(tokenizer)
    return lambda tokens_T: chinese.join(tokens_T, starts(tokens_T))
