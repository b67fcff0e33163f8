"""A fine-tuned model on examples that it never saw, by its task's own metrics."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.evaluation.judge import Judgement, judge
from foundling.evaluation.suites.base import Report, Subject
from foundling.tasks.base import Task


class Config(PartConfig):
    """How examples are read, where that is not as it was said when the model was trained."""

    kind: str = "task"
    """Name of the part."""
    format: Annotated[PartConfig, Part("tasks.formats")] | None = None
    """How the files are read: jsonl, json, csv, parquet, conll, squad; None: as the task says, or guessed."""
    bad_rows: Literal["error", "skip"] | None = None
    """What happens to rows that make no example: error, or skip (they are told and left out); None: as the task
    says."""

    def build(self) -> "TaskSuite":
        return TaskSuite(self)


class TaskSuite:
    comparable = True

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, subject: Subject, data: Sequence[Path]) -> Report:
        """Answers every example of the files and measures the answers. UserError: a model that was fine-tuned for
        nothing, rows that make no example, a baseline."""
        task = subject.task
        if task is None:
            raise UserError(
                "suite task is for a fine-tuned model",
                got="a model without a task",
                do="use --suite perplexity, pseudo-perplexity or minimal-pairs, or fine-tune it (foundling finetune)",
            )
        if subject.baseline is not None:
            raise UserError("--baseline is for suites that score text", got="suite task")
        said = {"format": self.config.format, "bad_rows": self.config.bad_rows}
        reads = task.config.model_copy(update={key: value for key, value in said.items() if value is not None})
        examples = reads.read([str(path) for path in data])
        if not examples:
            raise UserError("there must be an example to answer", got="none in " + ", ".join(map(str, data)))
        _tell_unknown(task, examples)
        found = judge(task.measured(examples, task.answers(subject.model, examples)), with_intervals=True)
        return Report(
            ["figure", "value", "95 %"],
            [[name, shown(found.figures[name]), between(*found.intervals[name])] for name in _for_people(found)],
            {**_plain(found), "examples": len(examples), "task": task.config.kind},
            has_total=False,
            notes=(f"{len(examples):,} examples", *found.settings.values()),
            scored=found.scored,
        )


def _for_people(found: Judgement) -> list[str]:
    """Figures that the table shows; precision and recall of each label are for the JSON."""
    return [name for name in found.figures if not name.startswith(("precision/", "recall/"))]


def _plain(found: Judgement) -> dict[str, Any]:
    """As JSON, which knows no NaN."""
    said = found.as_json()
    finite = lambda value: None if isinstance(value, float) and not math.isfinite(value) else value
    return {
        **{name: finite(value) for name, value in said.items()},
        "intervals": {name: [finite(end) for end in pair] for name, pair in said["intervals"].items()},
    }


def _tell_unknown(task: Task, examples: Sequence[Any]) -> None:
    known = set(task.facts.get("labels") or task.facts.get("counts") or ())
    truths = [
        tuple(label for *_, label in example.entities or ()) if hasattr(example, "entities")
        else getattr(example, "label", None)
        for example in examples
    ]  # fmt: skip
    sets = [
        {truth} if isinstance(truth, str) else set(truth) if isinstance(truth, tuple) else set() for truth in truths
    ]
    if known and (new := sorted(set().union(*sets) - known)):
        number = sum(bool(one - known) for one in sets)
        logger.warning(
            "%d examples have labels that the model never learnt (%s): no answer to them is right",
            number,
            ", ".join(new[:8]),
        )


def shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def between(low: float, high: float) -> str:
    """An interval, for people."""
    return "-" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
