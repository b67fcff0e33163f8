"""What a task is: lines of a file to examples, examples to rows, a model's answers to what a user reads.

A task is an objective too (`collate`, `loss`, `scores`), so the one loop trains it.
"""

# Shapes: R = rows, M = places that a head reads, C = classes.

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.core.units import Count
from foundling.data.batch import Batch
from foundling.data.rows import Row
from foundling.heads.base import HeadConfig
from foundling.models.base import family_of
from foundling.objectives.base import Losses, Scale
from foundling.tasks.fields import NamedFields
from foundling.tasks.files import Examples, RowFault, examples_of, read_records
from foundling.tasks.frame import Frame
from foundling.tasks.rows import TaskRow, pack, runs_by_length
from foundling.tokenizers.base import Tokenizer

FOLDER = "tasks"
LONGEST_ROW = 512
"""Tokens of a row where nothing else is said: what encoders are trained with."""
TOKENS_AT_ONCE = 4096
"""Of rows that are answered together."""

Facts = dict[str, Any]
"""What a task learns of its training data and a model folder keeps: labels, a temperature; JSON."""


@dataclass(frozen=True)
class Measured:
    """One way of measuring answers."""

    metric: str
    """Name of the part in `evaluation.metrics`."""
    golds: Sequence[Any]
    answers: Sequence[Any]
    """As the metric wants them."""
    settings: Mapping[str, Any]
    """Of the metric's config."""


class TaskConfig(PartConfig):
    """What every task is told."""

    train: tuple[str, ...]
    """Files of examples to train on: a path, a glob, or a list of them."""
    dev: tuple[str, ...] = ()
    """Examples that choose: when to stop, which checkpoint is best, at which temperature probabilities are meant."""
    test: tuple[str, ...] = ()
    """Examples that are only measured, at the end."""
    format: Annotated[PartConfig, Part("tasks.formats")] | None = None
    """How the files are read: jsonl, json, csv, parquet, conll, squad; None: guessed, and told."""
    fields: NamedFields = Field(default_factory=dict)
    """What the parts of an example are called in the files: {text: body, label: stars}; the usual names are known."""
    bad_rows: Literal["error", "skip"] = "error"
    """What happens to rows that make no example. error: the run does not start; skip: they are told and left out."""
    max_length: Annotated[Count, Field(ge=8)] | None = None
    """Tokens of a row at most; None: what the model has positions for, at most 512."""

    metric: ClassVar[str]
    """The main figure: what chooses the best checkpoint unless the recipe says otherwise (`Task.metric`)."""
    families: ClassVar[tuple[str, ...]]
    """Families whose models can be trained for it."""
    later: ClassVar[tuple[str, ...]] = ("fields", "format", "bad_rows")
    """What a trained model may be told otherwise when it answers: nothing that it was trained with."""

    @field_validator("train", "dev", "test", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else tuple(value or ())

    def read(self, paths: Sequence[str]) -> Examples[Any]:
        """The examples of files, in order. UserError: rows that make none, unless they are to be left out."""
        make = lambda data: self.example(data, known=True)
        return examples_of(read_records(paths, self.format), make, self.bad_rows)

    @abstractmethod
    def example(self, data: Mapping[str, Any], *, known: bool) -> Any:
        """One example. known: what is true must be told, otherwise it need not be. RowFault: what is wrong with it."""

    def of_text(self, text: str) -> dict[str, Any]:
        """A row that holds a text alone, under the name that the task reads it by."""
        return {self.fields.get("text", "text"): text}

    def texts(self, example: Any) -> Sequence[str]:
        """The texts of an example, of which a tokenizer of its own is trained; of tasks that allow that."""
        raise UserError(f"task {self.kind} needs a pretrained base", got="a model from initial weights", do="give base")

    @abstractmethod
    def learn(self, examples: Mapping[str, Sequence[Any]]) -> Facts:
        """What there is to learn of the examples of each split (`train`, `dev`, `test`): the labels, for example."""

    @abstractmethod
    def build(self, tokenizer: Tokenizer, body: Any, facts: Facts) -> "Task":
        """The task for a model. body: its family's config."""


class Task(ABC):
    """A task that knows its tokenizer, its model's shape and its facts; it holds no weights."""

    predicts_text = False
    pseudo_likelihood = False

    def __init__(self, config: TaskConfig, tokenizer: Tokenizer, body: Any, facts: Facts) -> None:
        self.config, self.tokenizer, self.body, self.facts = config, tokenizer, body, dict(facts)
        self.family = family_of(body)
        if self.family not in config.families:
            raise UserError(
                f"task {config.kind} needs a base of family {', '.join(config.families)}", got=f"one of {self.family}"
            )
        self.max_length = min(config.max_length or LONGEST_ROW, body.max_positions)
        self._told: set[str] = set()
        self._cut: dict[str, tuple[int, int]] | None = None

    def tell_cut(self, number: int, num_texts: int, what: str) -> None:
        """Warns, once for each `what`, of texts that do not go into a row whole; within `adding_up_cuts` at its end."""
        if self._cut is not None:
            before, texts_before = self._cut.get(what, (0, 0))
            self._cut[what] = before + number, texts_before + num_texts
        elif number and what not in self._told:
            self._told.add(what)
            logger.warning("%d of %d %s", number, num_texts, what)

    @contextmanager
    def adding_up_cuts(self) -> Iterator[None]:
        """What comes in parts is told as one."""
        if self._cut is not None:  # within another: told at that one's end
            yield
            return
        self._cut = {}
        try:
            yield
        finally:
            cut, self._cut = self._cut, None
            for what, (number, num_texts) in cut.items():
                self.tell_cut(number, num_texts, what)

    @property
    def metric(self) -> str:
        """The main figure of what this task is asked for."""
        return self.config.metric

    def head(self) -> HeadConfig | None:
        """The head that the task's model needs on its body; None: it answers with the body's own."""
        return None

    @abstractmethod
    def rows(self, examples: Sequence[Any]) -> Sequence[Row]:
        """The rows of examples: one each, or several windows of one."""

    @abstractmethod
    def collate(self, rows: Sequence[Row]) -> Batch: ...

    @abstractmethod
    def loss(self, model: Any, batch: Batch, scale: Scale, compiled: bool) -> Losses: ...

    @abstractmethod
    def scores(self, model: Any, batch: Batch) -> dict[str, Tensor]: ...

    @abstractmethod
    def answers(self, model: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        """What the model says to each example, as JSON."""

    @abstractmethod
    def measured(self, examples: Sequence[Any], answers: Sequence[Mapping[str, Any]]) -> list[Measured]:
        """What is right in answers, by the task's metrics, the main one first."""

    def finish(self, model: Any) -> None:  # noqa: B027 - most tasks have nothing to do
        """What is done to a trained model before it is written, for those who read its folder by themselves; in place.
        Nothing by default."""

    def reopen(self, model: Any) -> None:  # noqa: B027 - as above
        """Undoes `finish`, of a model that was read back, in fp32."""

    def calibrate(self, model: Any, examples: Sequence[Any]) -> Facts:
        """Facts that are fitted on examples held back, once the model is trained; none by default."""
        return {}

    def describe(self, example: Any) -> dict[str, Any]:
        """What a person reads of an example beside its answer."""
        return {key: value for key, value in vars(example).items() if value is not None}


class HeadTask(Task):
    """A task whose model is a body with a head."""

    loss_of_rows: ClassVar[bool] = True
    """Whether `losses` gives one for each row, or one for each place."""

    def __init__(self, config: TaskConfig, tokenizer: Tokenizer, body: Any, facts: Facts) -> None:
        super().__init__(config, tokenizer, body, facts)
        self.frame = Frame(self.family, tokenizer, own=self.facts.get("framing") != "tokenizer")

    @abstractmethod
    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of each row [R] or of each place [M] (`loss_of_rows`), fp32, from the head's logits."""

    @abstractmethod
    def decode(
        self, examples: Sequence[Any], rows: Sequence[TaskRow], outputs: Sequence[np.ndarray]
    ) -> list[dict[str, Any]]:
        """The answer to each example. outputs: the logits of each row, fp32 [C], or [places of the row, C]."""

    def collate(self, rows: Sequence[Row]) -> Batch:
        return pack(rows)

    def loss(self, model: Any, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        losses = self.losses(model(batch), batch)
        factor = scale.per_row if self.loss_of_rows else scale.per_target
        return Losses({self.config.kind: losses.sum() * factor}, losses.detach())

    def scores(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            return {"loss": self.losses(model(batch), batch)}

    def answers(self, model: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        rows: list[TaskRow] = list(self.rows(examples))  # type: ignore[arg-type]
        return self.decode(examples, rows, self.outputs(model, rows))

    def outputs(self, model: Any, rows: Sequence[TaskRow]) -> list[np.ndarray]:
        """The head's logits of each row, fp32, on the CPU, without gradients."""
        device = next(iter(model.parameters())).device
        found: list[np.ndarray] = [np.zeros(0)] * len(rows)
        with answering(model):
            for run in runs_by_length(rows, TOKENS_AT_ONCE):
                batch = self.collate([rows[number] for number in run])
                logits = model(batch.to(device)).float().cpu().numpy()
                if model.head.whole_row:
                    parts: Sequence[np.ndarray] = list(logits)
                else:
                    parts = np.split(logits, np.cumsum([len(rows[number].places) for number in run])[:-1])
                for number, part in zip(run, parts, strict=True):
                    found[number] = part
        return found

    def head_style(self, *, whole_row: bool) -> dict[str, Any]:
        """How the families' own heads are made, so that other libraries read what we write."""
        if self.family == "gpt":
            return {"bias": not whole_row}
        if self.family == "bert" and self.body.math == "modern":
            return {"inner": "gelu", "norm_eps": self.body.eps}
        return {"inner": "tanh" if whole_row else "none"}


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without gradients; afterwards it is as it was."""
    trains = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(trains)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities over the last dimension, fp64."""
    x = logits.astype(np.float64) / temperature
    exp = np.exp(x - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def fitted_temperature(nll: Callable[[float], float]) -> float:
    """The temperature with the least mean negative log-likelihood (Guo et al. 2017, arXiv:1706.04599, section 4.2), by
    a golden-section search over its logarithm in [1/10, 10]."""
    low, high, ratio = np.log(0.1), np.log(10.0), (5**0.5 - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if nll(float(np.exp(left))) < nll(float(np.exp(right))):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


__all__ = [
    "FOLDER",
    "Facts",
    "HeadTask",
    "Measured",
    "RowFault",
    "Task",
    "TaskConfig",
    "answering",
    "fitted_temperature",
    "softmax",
]
