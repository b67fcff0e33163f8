"""What a suite is: a way to examine a language model, found by its file's name, run by `foundling evaluate`.

A suite file holds `Config(PartConfig)`, whose fields are set as `key=value`, and the class that `Config.build()`
returns.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from foundling.core.errors import UserError
from foundling.data.store import TokenStream
from foundling.evaluation.likelihood import TextScorer
from foundling.evaluation.metrics.base import Scored
from foundling.evaluation.ngram import Ngram
from foundling.evaluation.training_text import count_seen
from foundling.models.base import Model
from foundling.tasks.base import Task
from foundling.tokenizers.base import Tokenizer

FOLDER = "evaluation.suites"


@dataclass(frozen=True)
class Subject:
    """What is examined."""

    model: Model
    tokenizer: Tokenizer
    max_positions: int
    """Longest row that the model reads, tokens."""
    scorer: TextScorer | None = None
    """The model's objective, where it can say how likely a text is."""
    predicts_text: bool = True
    """Whether the model predicts text in order, so that bits per byte have a meaning."""
    baseline: Ngram | None = None
    """An n-gram model over the same tokens, to stand beside the model; None: not asked for."""
    task: Task | None = None
    """What the model was fine-tuned for."""
    trained_on: Sequence[TokenStream] = ()
    """The run's training text, where its folder still has it."""
    objectives: Sequence[str] = ()
    """What the model's family can be trained by, its own first; none where it has a task's head."""

    def need_scorer(self) -> TextScorer:
        if self.scorer is None:
            raise UserError("the model must be of a family that can say how likely a text is (gpt, bert, xlnet)")
        return self.scorer

    def seen_of(self, texts: Iterable[str]) -> "Seen":
        """How many of the texts the run was trained on."""
        if not self.trained_on:
            return Seen(None)
        return Seen(count_seen(self.trained_on, (self.tokenizer.encode(text) for text in texts)))


@dataclass(frozen=True)
class Seen:
    """Texts that are scored and that the model was trained on."""

    number: int | None
    """How many of them; None: its training text is not at hand."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What people are told where there are any."""
        if not self.number:
            return ()
        told = "1 text is" if self.number == 1 else f"{self.number:,} texts are"
        return (f"{told}, word for word, in what the run was trained on: these figures are not all of unseen text",)

    @property
    def figures(self) -> dict[str, int]:
        """The same for programs; nothing where it is not known."""
        return {} if self.number is None else {"texts_trained_on": self.number}


@dataclass(frozen=True)
class Report:
    """What came out, for people and for programs."""

    columns: list[str]
    """Headings; the first is that of the names of the rows."""
    rows: list[list[str]]
    """One line each, the last one the whole unless `has_total` is false."""
    figures: dict[str, Any]
    """Everything as plain data, for JSON; no NaN and no infinity."""
    has_total: bool = True
    notes: tuple[str, ...] = ()
    """Lines below the table: how figures were computed."""
    scored: Mapping[str, Scored] = field(default_factory=dict)
    """What two models are compared by, under the names that tell whose figures they are; empty: by nothing yet."""


class Suite(Protocol):
    """Built from a suite's `Config`."""

    comparable: bool
    """Whether it measures examples one by one, so that two models can be told apart (`Report.scored`)."""

    def run(self, subject: Subject, data: Sequence[Path]) -> Report:
        """Examines the subject on the data that the user named; UserError where the data is not for this suite."""
        ...
