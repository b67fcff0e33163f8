"""Loss, perplexity and bits per byte of text, by source: see `foundling.evaluation.perplexity`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.units import Count
from foundling.evaluation.perplexity import Score, perplexity
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
    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, subject: Subject, data: Sequence[Path]) -> Report:
        """Scores every document of the data. UserError: see `read_texts` and `perplexity`."""
        row_length = self.config.row_length or min(subject.max_positions, _LONGEST_ROW)
        if row_length > subject.max_positions:
            raise UserError(
                f"row_length must be at most {subject.max_positions}, the model's positions", got=row_length
            )
        texts = read_texts(data, split=self.config.split, reader=self.config.format, text_field=self.config.text_field)
        found = perplexity(subject.model, subject.tokenizer, texts, row_length=row_length, context=self.config.context)
        rows = [_row(source, score) for source, score in found.by_source.items()]
        return Report(
            ["source", "bits per byte", "perplexity", "loss", "tokens", "bytes", "documents"],
            [*rows, _row("all", found.total)],
            {
                **_figures(found.total),
                "by_source": {source: _figures(score) for source, score in found.by_source.items()},
                "settings": {"row_length": row_length, "context": self.config.context, "split": self.config.split},
            },
        )


def _row(name: str, score: Score) -> list[str]:
    figures = [f"{score.bits_per_byte:.4f}", f"{score.perplexity:.2f}", f"{score.loss:.4f}"]
    return [name, *figures, f"{score.num_tokens:,}", f"{score.num_bytes:,}", f"{score.num_documents:,}"]


def _figures(score: Score) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in score.figures().items()}
