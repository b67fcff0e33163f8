"""Loss, perplexity and bits per byte of text, by source: see `foundling.evaluation.perplexity`."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.units import Count
from foundling.evaluation.ngram import Ngram
from foundling.evaluation.perplexity import Score, document_end, perplexity
from foundling.evaluation.suites.base import Report, Subject
from foundling.evaluation.texts import read_texts

_LONGEST_ROW = 2048
"""Rows of models that could read more are cut here unless row_length is set: attention costs grow with its square."""


class Config(PartConfig):
    """How text is cut into rows."""

    kind: str = "perplexity"
    """Name of the part."""
    row_length: Annotated[Count, Ge(1)] | None = None
    """Tokens that the model reads at once; None: all its positions, at most 2048."""
    context: Annotated[Count, Ge(0)] = 0
    """Tokens at the beginning of each row that were scored in the row before and are only read."""
    split: Literal["train", "valid"] = "valid"
    """Which split of a corpus folder."""
    format: Annotated[PartConfig, Part("corpus.readers")] | None = None
    """How raw files are read: text or jsonl; None: by their suffix."""
    text_field: str | None = None
    """Key of the text in JSON lines; None: guessed."""

    def build(self) -> "PerplexitySuite":
        return PerplexitySuite(self)


class PerplexitySuite:
    comparable = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, subject: Subject, data: Sequence[Path]) -> Report:
        """Scores every document of the data. UserError: see `read_texts` and `perplexity`."""
        if not subject.predicts_text:
            raise UserError(
                "perplexity is of a model that predicts text in order",
                got="one that reads both sides of a token, or a source",
                do="of bert and xlnet use --suite pseudo-perplexity or --suite minimal-pairs, of any --suite pretext",
            )
        row_length = self.config.row_length or min(subject.max_positions, _LONGEST_ROW)
        if row_length > subject.max_positions:
            raise UserError(
                f"row_length must be at most {subject.max_positions}, the model's positions", got=row_length
            )
        found = perplexity(
            subject.model, subject.tokenizer, self._texts(data), row_length=row_length, context=self.config.context
        )
        rows = [_row(source, score) for source, score in found.by_source.items()]
        seen = subject.seen_of(text for _, text in self._texts(data))
        beside: dict[str, Any] = {}
        if subject.baseline is not None:
            score = self._baseline(subject, subject.baseline, data, found.total)
            rows.append(_row(f"all, {subject.baseline.order}-gram baseline", score))
            beside = {"baseline": {**_figures(score), "order": subject.baseline.order}}
        return Report(
            ["source", "bits per byte", "perplexity", "loss", "tokens", "bytes", "documents"],
            [*rows, _row("all", found.total)],
            {
                **_figures(found.total),
                **beside,
                **seen.figures,
                "by_source": {source: _figures(score) for source, score in found.by_source.items()},
                "settings": {"row_length": row_length, "context": self.config.context, "split": self.config.split},
            },
            notes=(*_unknown(found.total), *seen.notes),
        )

    def _baseline(self, subject: Subject, baseline: Ngram, data: Sequence[Path], total: Score) -> Score:
        """The same tokens by the n-gram model, every token with all before it."""
        end = document_end(subject.tokenizer)
        nats, num_tokens, history = 0.0, 0, [end]
        for _, text in self._texts(data):
            ids = [*subject.tokenizer.encode(text), end]
            nats += float(baseline.losses(np.array(ids), history).sum())
            num_tokens, history = num_tokens + len(ids), (history + ids)[-baseline.order :]
        assert num_tokens == total.num_tokens, "the baseline scores the same tokens"
        return Score(nats, num_tokens, total.num_bytes, total.num_documents)

    def _texts(self, data: Sequence[Path]) -> Iterator[tuple[str, str]]:
        config = self.config
        return read_texts(data, split=config.split, reader=config.format, text_field=config.text_field)


def _unknown(score: Score) -> tuple[str, ...]:
    """What is to be said of tokens that the tokenizer does not know."""
    if not score.num_unknown:
        return ()
    share = score.num_unknown / score.num_tokens
    return (
        f"{score.num_unknown:,} of the tokens ({share:.2%}) are unknown to the tokenizer: the text cannot be told from "
        "them, and bits per byte are lower than those of a tokenizer that spells all",
    )


def _row(name: str, score: Score) -> list[str]:
    figures = [f"{score.bits_per_byte:.4f}", f"{score.perplexity:.2f}", f"{score.loss:.4f}"]
    return [name, *figures, f"{score.num_tokens:,}", f"{score.num_bytes:,}", f"{score.num_documents:,}"]


def _figures(score: Score) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in score.figures().items()}
