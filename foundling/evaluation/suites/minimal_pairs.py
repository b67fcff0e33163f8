"""Minimal pairs: which of two sentences, that differ in one point of grammar, the model finds more likely.

The format is BLiMP's (Warstadt et al. 2020, arXiv:1912.00582): JSON lines with `sentence_good`, `sentence_bad` and, for
the table, `linguistics_term` and `UID`. A pair is a hit where the whole good sentence is strictly more likely.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.units import Count
from foundling.evaluation.intervals import wilson
from foundling.evaluation.likelihood import log_likelihoods
from foundling.evaluation.metrics.base import Sums, examples_of
from foundling.evaluation.perplexity import document_end
from foundling.evaluation.suites.base import Report, Subject


class Config(PartConfig):
    """What is scored and how it is grouped."""

    kind: str = "minimal_pairs"
    """Name of the part."""
    by: Literal["linguistics_term", "UID", "field"] = "linguistics_term"
    """Field of the data that the table groups by; pairs without it stand under `all` only."""
    limit: Count | None = None
    """At most so many pairs of each `UID`, the first ones; None: all."""

    def build(self) -> "MinimalPairs":
        return MinimalPairs(self)


@dataclass(frozen=True)
class _Pair:
    good: str
    bad: str
    group: str | None
    kind: str | None
    where: str
    """File and line."""


class MinimalPairs:
    comparable = True

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, subject: Subject, data: Sequence[Path]) -> Report:
        """Scores each pair. UserError: a line that is no pair or cannot be scored (told with file and number), no pair
        at all."""
        pairs = list(self._limited(pair for path in data for pair in _read(path, self.config.by)))
        if not pairs:
            raise UserError("there must be pairs to score", got="none", do="give a JSON lines file in BLiMP's format")
        ids = [subject.tokenizer.encode(text) for pair in pairs for text in (pair.good, pair.bad)]
        names = [f"{pair.where}, {key}" for pair in pairs for key in ("sentence_good", "sentence_bad")]
        objective = subject.need_scorer()
        likely = log_likelihoods(subject.model, objective, ids, max_positions=subject.max_positions, names=names)
        models = {"model": likely}
        if subject.baseline is not None:
            end = [document_end(subject.tokenizer)]
            models["n-gram"] = np.array([-subject.baseline.losses(np.array(text), end).sum() for text in ids])
        hits = {name: found[0::2] > found[1::2] for name, found in models.items()}
        groups = sorted({pair.group for pair in pairs if pair.group is not None})
        chosen = {name: np.array([pair.group == name for pair in pairs]) for name in groups}
        chosen["all"] = np.ones(len(pairs), dtype=bool)
        figures = {model: {name: _share(found, mask) for name, mask in chosen.items()} for model, found in hits.items()}
        rows = [
            [name, *(cell for model in hits for cell in _cells(figures[model][name])), f"{int(mask.sum()):,}"]
            for name, mask in chosen.items()
        ]
        headings = [cell for model in hits for cell in (f"{model} accuracy", "95 %")]
        measure = "pseudo-log-likelihood" if objective.pseudo_likelihood else "log-likelihood"
        return Report(
            [self.config.by, *headings, "pairs"],
            rows,
            {
                **figures["model"]["all"],
                "by_group": figures["model"],
                **({"baseline": figures["n-gram"]} if "n-gram" in figures else {}),
                "settings": {"by": self.config.by, "measure": measure, "limit": self.config.limit},
            },
            scored={"pairs": _scored(pairs, hits["model"])},
        )

    def _limited(self, pairs: Iterator[_Pair]) -> Iterator[_Pair]:
        seen: dict[str | None, int] = {}
        for pair in pairs:
            seen[pair.kind] = seen.get(pair.kind, 0) + 1
            if self.config.limit is None or seen[pair.kind] <= self.config.limit:
                yield pair


def _scored(pairs: Sequence[_Pair], hits: np.ndarray) -> Sums:
    examples = examples_of([[pair.good, pair.bad] for pair in pairs], pairs)
    settings = "accuracy: share of pairs whose good sentence is the more likely one"
    return Sums(settings, True, examples, hits, lambda num_hits, num: {"accuracy": float(num_hits / num)})


def _share(hits: np.ndarray, mask: np.ndarray) -> dict[str, float | int]:
    number, num_hits = int(mask.sum()), int(hits[mask].sum())
    low, high = wilson(num_hits, number)
    return {"accuracy": num_hits / number, "low": low, "high": high, "pairs": number}


def _cells(figures: dict[str, float | int]) -> list[str]:
    return [f"{figures['accuracy']:.3f}", f"{figures['low']:.3f} - {figures['high']:.3f}"]


def _read(path: Path, by: str) -> Iterator[_Pair]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _pair(line, f"{path}, line {number}", by)
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise UserError(f"{path} could not be read: {error}") from error


def _pair(line: str, where: str, by: str) -> _Pair:
    try:
        row: Any = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UserError(f"{where} must be a JSON object", got=line.strip()[:60])
    texts = [row.get(key) for key in ("sentence_good", "sentence_bad")]
    good, bad = texts
    if not (isinstance(good, str) and isinstance(bad, str) and good.strip() and bad.strip()):
        raise UserError(f"{where} must have sentence_good and sentence_bad", got=", ".join(row) or "no field")
    kind = row.get("UID")
    group = row.get(by)
    return _Pair(good, bad, None if group is None else str(group), None if kind is None else str(kind), where)
