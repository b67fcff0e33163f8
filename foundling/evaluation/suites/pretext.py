"""What a model was pretrained to do, done on text that it never saw, by source: the mean loss of its objective (hidden
words, tokens in a permuted order, spans that are cut out, a text's rest after its beginning) and whatever else the
objective measures, such as the share of masked words that are found. For every family; of models with one objective
and one tokenizer the figures can be compared.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import nn

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.core.units import Count
from foundling.data.rows import Row
from foundling.evaluation.likelihood import BATCH_TOKENS
from foundling.evaluation.perplexity import document_end
from foundling.evaluation.suites.base import Report, Subject
from foundling.evaluation.texts import read_texts
from foundling.objectives.base import Objective

_LONGEST_ROW = 512


class Config(PartConfig):
    """Which objective, and how much text."""

    kind: str = "pretext"
    """Name of the part."""
    objective: Annotated[PartConfig, Part("objectives")] | None = None
    """What is asked; None: what the run was trained by, of a model folder the family's own as it comes."""
    row_length: Annotated[Count, Ge(1)] | None = None
    """Tokens of a row; None: all positions of the model, at most 512."""
    tokens: Annotated[Count, Ge(1)] = 200_000
    """At most so many tokens of the data are read, the first ones, spread evenly over the sources."""
    split: Literal["train", "valid"] = "valid"
    """Which split of a corpus folder."""

    def build(self) -> "Pretext":
        return Pretext(self)


class Pretext:
    comparable = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, subject: Subject, data: Sequence[Path]) -> Report:
        """UserError: a model with a task's head, rows longer than the positions, no source that fills a row."""
        objective = self._objective(subject)
        row_length = self.config.row_length or min(subject.max_positions, _LONGEST_ROW)
        if row_length > subject.max_positions:
            raise UserError(
                f"row_length must be at most {subject.max_positions}, the model's positions", got=row_length
            )
        sums: dict[str, dict[str, np.ndarray]] = {}
        faults: dict[str, str] = {}
        for source, stream in self._streams(subject, data).items():
            try:
                samples = objective.samples([stream], None, row_length=row_length, seed=0)
                sums[source] = _sums(subject, objective, [samples[i] for i in range(samples.num_rows)])
            except UserError as fault:
                faults[source] = str(fault)
        if not sums:
            raise UserError("the text must fill one row", got="; ".join(dict.fromkeys(faults.values())) or "none")
        sums["all"] = {name: np.sum([own[name] for own in sums.values()], axis=0) for name in next(iter(sums.values()))}
        figures = {source: _figures(own) for source, own in sums.items()}
        others = [name for name in sums["all"] if name != "loss"]
        rows = [
            [source, f"{own['loss']:.4f}", *(f"{own[name]:.4f}" for name in others), f"{own['targets']:,}"]
            for source, own in figures.items()
        ]
        return Report(
            ["source", "loss, nats a target", *(name.replace("_", " ") for name in others), "targets"],
            rows,
            {
                **figures["all"],
                "by_source": {name: own for name, own in figures.items() if name != "all"},
                "settings": {"row_length": row_length, "tokens": self.config.tokens, "split": self.config.split},
            },
            notes=tuple(f"left out: {source}: {fault}" for source, fault in faults.items()),
        )

    def _objective(self, subject: Subject) -> Objective:
        config: Any = self.config.objective
        known = subject.objectives
        if not known:
            raise UserError("--suite pretext is of a pretrained model", got="one of a task", do="use --suite task")
        if config is None:
            config = load_part("objectives", known[0]).Config(kind=known[0])
        if config.kind not in known:
            raise UserError(f"objective must be one that the family is trained by, {', '.join(known)}", got=config.kind)
        objective: Objective = config.build(subject.tokenizer)
        return objective

    def _streams(self, subject: Subject, data: Sequence[Path]) -> dict[str, "_Texts"]:
        sources = {source for source, _ in read_texts(data, split=self.config.split)}
        room = dict.fromkeys(sources, max(1, self.config.tokens // max(1, len(sources))))
        end = document_end(subject.tokenizer)
        found: dict[str, list[list[int]]] = {}
        for source, text in read_texts(data, split=self.config.split):
            if room[source] <= 0:
                continue
            ids = [*subject.tokenizer.encode(text)[: room[source]], end]
            room[source] -= len(ids)
            found.setdefault(source, []).append(ids)
        return {source: _Texts(documents) for source, documents in found.items()}


class _Texts:
    """A stream of documents in memory, each with its end token."""

    def __init__(self, documents: Iterable[Sequence[int]]) -> None:
        parts = [np.asarray(document, dtype=np.int64) for document in documents]
        self._tokens = np.concatenate(parts)
        self.num_tokens, self.num_documents = len(self._tokens), len(parts)
        self.document_lengths = np.array([len(part) for part in parts])
        self.document_starts = np.cumsum(self.document_lengths) - self.document_lengths

    def read(self, start: int, length: int) -> np.ndarray:
        return self._tokens[start : start + length]


@torch.no_grad()
def _sums(subject: Subject, objective: Objective, rows: list[Row]) -> dict[str, np.ndarray]:
    """Of each score its sum and how many there are, fp64 [2]. UserError: a loss that is not finite."""
    rows = sorted(rows, key=lambda row: -row.num_tokens)
    assert isinstance(subject.model, nn.Module)
    device = next(subject.model.parameters()).device
    sums: dict[str, np.ndarray] = {}
    while rows:
        number = max(1, BATCH_TOKENS // max(1, rows[0].num_tokens))
        batch, rows = objective.collate(rows[:number]), rows[number:]
        for name, values in objective.scores(subject.model, batch.to(device)).items():
            own = np.array([values.double().sum().item(), values.numel()])
            sums[name] = sums.get(name, np.zeros(2)) + own
    if not math.isfinite(sums["loss"][0]):
        raise UserError(
            "the loss must be finite",
            got=sums["loss"][0],
            do="the model's weights are damaged, or its numbers overflow: try fp32",
        )
    return sums


def _figures(sums: dict[str, np.ndarray]) -> dict[str, Any]:
    means = {name: float(total / max(1.0, number)) for name, (total, number) in sums.items()}
    return {**means, "targets": int(sums["loss"][1])}
