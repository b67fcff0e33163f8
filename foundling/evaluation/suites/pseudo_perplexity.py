"""Pseudo-perplexity of text: each token predicted from all others around it (Salazar et al. 2020, arXiv:1910.14659,
equation 4). For models that read both sides, masked or permuted; lower than a perplexity, and not to be compared with
one (an n-gram baseline's, over the same tokens, is a yardstick). Every token costs a row, so only the first tokens of
the data are scored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.units import Count
from foundling.evaluation.likelihood import log_likelihoods
from foundling.evaluation.ngram import Ngram
from foundling.evaluation.perplexity import document_end
from foundling.evaluation.suites.base import Report, Subject
from foundling.evaluation.texts import read_texts


class Config(PartConfig):
    """How much text is scored, and in which pieces."""

    kind: str = "pseudo_perplexity"
    """Name of the part."""
    row_length: Annotated[Count, Ge(4)] = 128
    """Tokens of a piece, what the model puts around it included; at most the model's positions."""
    tokens: Annotated[Count, Ge(1)] = 20_000
    """At most so many tokens of the data are scored, the first ones, spread evenly over the sources; of each source at
    least one."""
    split: Literal["train", "valid"] = "valid"
    """Which split of a corpus folder."""

    def build(self) -> "PseudoPerplexity":
        return PseudoPerplexity(self)


@dataclass(frozen=True)
class _Piece:
    """Tokens that are scored in rows of their own."""

    ids: list[int]
    before: list[int]
    """What stands before them in their text, which an n-gram model reads."""


class PseudoPerplexity:
    comparable = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, subject: Subject, data: Sequence[Path]) -> Report:
        """Scores the beginning of each source. UserError: a model that predicts text in order, no text."""
        scorer = subject.need_scorer()
        if not scorer.pseudo_likelihood:
            raise UserError("pseudo-perplexity is of a model that reads both sides", do="use --suite perplexity")
        row_length = min(self.config.row_length, subject.max_positions)
        longest = row_length - (scorer.text_rows(1)[1] - 1)
        history = 0 if subject.baseline is None else subject.baseline.order
        seen = subject.seen_of(text for _, text in read_texts(data, split=self.config.split))
        sources = {source for source, _ in read_texts(data, split=self.config.split)}
        left = dict.fromkeys(sources, max(1, self.config.tokens // max(1, len(sources))))
        chosen: dict[str, list[_Piece]] = {}
        for source, text in read_texts(data, split=self.config.split):
            if not left[source]:
                continue
            ids = subject.tokenizer.encode(text)
            end = min(len(ids), left[source])
            left[source] -= end
            chosen.setdefault(source, []).extend(
                _Piece(ids[i : min(end, i + longest)], ids[max(0, i - history) : i]) for i in range(0, end, longest)
            )
        chosen = {source: pieces for source, pieces in chosen.items() if pieces}
        if not chosen:
            raise UserError("there must be text to score", got="none")
        nats, tokens = {}, {}
        for source, found in chosen.items():
            texts = [piece.ids for piece in found]
            likely = log_likelihoods(subject.model, scorer, texts, max_positions=subject.max_positions)
            nats[source], tokens[source] = float(-likely.sum()), sum(map(len, texts))
        nats["all"], tokens["all"] = sum(nats.values()), sum(tokens.values())
        means = {name: nats[name] / tokens[name] for name in nats}
        rows = [[name, f"{math.exp(loss):.2f}", f"{loss:.4f}", f"{tokens[name]:,}"] for name, loss in means.items()]
        beside: dict[str, Any] = {}
        if subject.baseline is not None:
            loss = _baseline_loss(subject, subject.baseline, [piece for found in chosen.values() for piece in found])
            name = f"all, {subject.baseline.order}-gram baseline, a perplexity"
            rows.insert(-1, [name, f"{math.exp(loss):.2f}", f"{loss:.4f}", f"{tokens['all']:,}"])
            beside = {"baseline": {"perplexity": math.exp(loss), "order": subject.baseline.order}}
        figures = {n: {"pseudo_perplexity": math.exp(loss), "tokens": tokens[n]} for n, loss in means.items()}
        settings = {"row_length": row_length, "tokens": self.config.tokens, "split": self.config.split}
        return Report(
            ["source", "pseudo-perplexity", "loss", "tokens"],
            rows,
            {
                **figures["all"],
                **beside,
                **seen.figures,
                "by_source": {n: f for n, f in figures.items() if n != "all"},
                "settings": settings,
            },
            notes=seen.notes,
        )


def _baseline_loss(subject: Subject, baseline: Ngram, pieces: Sequence[_Piece]) -> float:
    """The n-gram model's mean loss over the same tokens, each after all that stands before it in its text."""
    end = document_end(subject.tokenizer)
    losses = [baseline.losses(np.array(piece.ids), [end, *piece.before]) for piece in pieces]
    return float(np.concatenate(losses).mean())
