"""A fine-tuned model's folder: the model as other libraries read it where they have a class for it, and `task.json`,
which says what its answers mean."""

# Shapes: R = rows, N = packed tokens.

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foundling.core.config import Strict, resolved, validate
from foundling.core.errors import UserError
from foundling.core.files import read_json
from foundling.core.log import logger
from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.heads.base import HeadConfig
from foundling.models.base import family_of
from foundling.models.hub import base, format_for, load_model, save_model
from foundling.models.hub.base import ConfigReader, Weight
from foundling.tasks.base import FOLDER, Task, TaskConfig
from foundling.tasks.model import TaskModel, TaskShape
from foundling.tokenizers.base import load_tokenizer

TASK_FILE = "task.json"

_CLASSES = {
    ("bert", "sequence"): ("BertForSequenceClassification", {"inner": "bert.pooler.dense", "out": "classifier"}),
    ("bert", "token"): ("BertForTokenClassification", {"out": "classifier"}),
    ("bert", "span"): ("BertForQuestionAnswering", {"out": "qa_outputs"}),
    ("modernbert", "sequence"): (
        "ModernBertForSequenceClassification", {"inner": "head.dense", "norm": "head.norm", "out": "classifier"},
    ),
    ("modernbert", "token"): (
        "ModernBertForTokenClassification", {"inner": "head.dense", "norm": "head.norm", "out": "classifier"},
    ),
    ("modernbert", "span"): (
        "ModernBertForQuestionAnswering", {"inner": "head.dense", "norm": "head.norm", "out": "classifier"},
    ),
    ("gpt2", "sequence"): ("GPT2ForSequenceClassification", {"out": "score"}),
    ("gpt2", "token"): ("GPT2ForTokenClassification", {"out": "classifier"}),
    ("gpt2", "span"): ("GPT2ForQuestionAnswering", {"out": "qa_outputs"}),
    ("qwen3", "sequence"): ("Qwen3ForSequenceClassification", {"out": "score"}),
    ("qwen3", "token"): ("Qwen3ForTokenClassification", {"out": "score"}),
    ("qwen3", "span"): ("Qwen3ForQuestionAnswering", {"out": "qa_outputs"}),
    ("llama", "sequence"): ("LlamaForSequenceClassification", {"out": "score"}),
    ("llama", "token"): ("LlamaForTokenClassification", {"out": "score"}),
    ("llama", "span"): ("LlamaForQuestionAnswering", {"out": "qa_outputs"}),
    ("xlnet", "sequence"): (
        "XLNetForSequenceClassification", {"inner": "sequence_summary.summary", "out": "logits_proj"},
    ),
    ("xlnet", "token"): ("XLNetForTokenClassification", {"out": "classifier"}),
    ("xlnet", "span"): ("XLNetForQuestionAnsweringSimple", {"out": "qa_outputs"}),
}  # fmt: skip
"""(format of the body, head) -> the class of transformers, and what it calls the layers of the head."""
_OTHER_PREFIXES = {("qwen3", "span"): "transformer.", ("llama", "span"): "transformer."}
"""What these classes call the body, which is `model.` in all others of theirs."""
_FURTHER_KEYS: dict[str, dict[str, Any]] = {
    "modernbert": {"classifier_pooling": "cls"},
    "xlnet": {
        "summary_type": "last",
        "summary_use_proj": True,
        "summary_activation": "tanh",
        "summary_last_dropout": 0.0,
    },
}
"""What config.json must say besides, for the class to compute what we do."""


class HeadedFormat(base.Format):
    """The format of a body with a task's head. Unlike other formats it belongs to one config."""

    token_roles: ClassVar[tuple[str, ...]] = ("pad", "bos", "eos")
    pipeline = None

    def __init__(self, config: TaskShape, labels: list[str] | None = None, target: str | None = None) -> None:
        """labels: names of the classes; target: what a classification asks for (`problem_type`)."""
        assert isinstance(config.head, HeadConfig)
        self._config, self._labels, self._target = config, labels, target
        self._body = format_for(config.body)
        known = _CLASSES.get((self._body.model_type, config.head.kind))
        self.is_ours = known is None
        self.architecture, self._names = known or ("", {})
        self.model_type = "foundling-task" if self.is_ours else self._body.model_type
        known_prefix = _OTHER_PREFIXES.get((self._body.model_type, config.head.kind), self._body.base_prefix)
        self.base_prefix = "" if self.is_ours else known_prefix
        self.embedding = "body.embedding.weight" if self.is_ours else self._theirs(self._body.embedding)
        self.head = "" if self.is_ours else self._body.head
        self.unused_weights = () if self.is_ours else self._body.unused_weights
        self.renames = () if self.is_ours else self._body.renames
        self.auto_class = None if self.is_ours else self.architecture
        self.reads_row_end = family_of(config.body) == "gpt" and config.head.kind == "sequence" and not self.is_ours

    def read_config(self, keys: ConfigReader, what: str) -> TaskShape:
        if self.is_ours:
            return self._config
        bare = self._body.architecture_of(self._config.body)
        found = self._body.read_config(keys.with_values(architectures=[bare]), what)
        said, held = (self._body.write_config(config) for config in (found.bare(), self._config.body))
        if said != held:
            raise UserError(f"{what} and {TASK_FILE} must tell of one model", got="two that differ")
        return self._config

    def writes(self, config: Any) -> bool:
        return bool(config == self._config)

    def write_config(self, config: TaskShape) -> dict[str, Any]:
        named: dict[str, Any] = {}
        if self._labels:
            named["id2label"] = {str(i): label for i, label in enumerate(self._labels)}
            named["label2id"] = {label: i for i, label in enumerate(self._labels)}
        if self.is_ours:
            logger.info("model: in our own layout (%s); transformers has no class that computes it", self.model_type)
            return {**named, **resolved(config)}
        assert isinstance(config.head, HeadConfig)
        if self._target is not None:
            named["problem_type"] = self._target
        if not self._labels:
            named["num_labels"] = config.head.num_classes
        return {**self._body.write_config(config.body), **_FURTHER_KEYS.get(self._body.model_type, {}), **named}

    def weights(self, config: TaskShape) -> list[Weight]:
        if self.is_ours:
            with torch.device("meta"):
                return [Weight(name, (name,)) for name, _ in config.build().named_parameters()]
        found = [
            replace(weight, ours=f"body.{weight.ours}", theirs=tuple(map(self._theirs, weight.theirs)))
            for weight in self._body.weights(config.body)
        ]
        with torch.device("meta"):
            head = config.build().head
        for name, _ in head.named_parameters():
            layer, _, kind = name.partition(".")
            found.append(Weight(f"head.{name}", (f"{self._names[layer]}.{kind}",)))
        return found

    def _theirs(self, name: str) -> str:
        """A weight of the body as the class with this head calls it."""
        inside = name.removeprefix(self._body.base_prefix)
        return name if inside == name else self.base_prefix + inside

    def probe(self, model: Any, batch: Batch) -> list[Tensor]:
        starts_R = batch.bounds_R1[:-1].long()
        whole = model.head.whole_row
        places = torch.cat([starts_R, starts_R + 1]).sort().values if whole else torch.arange(batch.num_tokens)
        if whole and model.config.head.kind == "sequence":
            places = starts_R
        return [model(replace(batch, target_index_M=places))]


class TaskFile(Strict):
    """What `task.json` says."""

    task: dict[str, Any]
    """The task's config."""
    facts: dict[str, Any]
    """What it learnt of its training data."""
    model: dict[str, Any] | None = None
    """The shape of the body with its head; None: the model is one of a family as it is."""


def save_task(
    model: nn.Module, task: Task, folder: Path, *, card: Mapping[str, Any] | None = None, inputs: dict[str, str]
) -> None:
    """Writes a fine-tuned model's folder, whole or not at all; see `save_model`."""
    config: Any = model.config
    headed = isinstance(config, TaskShape)
    said = TaskFile(task=resolved(task.config), facts=task.facts, model=resolved(config) if headed else None)
    save_model(
        model, folder, tokenizer=task.tokenizer, card=dict(card or {}), inputs=inputs,
        form=_form(said) if headed else None, beside={TASK_FILE: resolved(said)},
    )  # fmt: skip


def is_task_folder(folder: Path) -> bool:
    """Whether a model folder has a task's head: one of ours, or of a class of transformers that we know."""
    return (folder / TASK_FILE).is_file() or _class_in(folder) is not None


def load_base(folder: Path) -> Any:
    """The model of a folder that a fine-tuning starts from; of a fine-tuned one it takes the body and leaves the
    head's last matrix."""
    return load_task(folder)[1] if is_task_folder(folder) else load_model(folder)


def _class_in(folder: Path) -> tuple[str, str] | None:
    """(format of the body, head) of a folder of transformers with a head that we know."""
    data = read_json(folder / "config.json")
    named = data.get("architectures") if isinstance(data, dict) else None
    return next((key for key, (name, _) in _CLASSES.items() if named == [name] and key[1] == "sequence"), None)


def _said_by_transformers(folder: Path, body_format: str) -> TaskFile:
    """What task.json would say of a classifier that was trained elsewhere: its labels stand in config.json."""
    path = folder / "config.json"
    data = read_json(path)
    for key, computed in _FURTHER_KEYS.get(body_format, {}).items():
        if "dropout" not in key and (said := data.get(key, computed)) != computed:
            raise UserError(f"{path}: {key} must be {computed!r}, which is what is computed", got=repr(said))
    form: base.Format = load_part("models.hub", body_format).Format()
    config: Any = form.read_config(
        ConfigReader(data, str(path)).with_values(architectures=[form.architecture]), str(path)
    )
    named = data.get("id2label") or {str(i): f"LABEL_{i}" for i in range(data.get("num_labels", 2))}
    labels = [named[key] for key in sorted(named, key=int)]
    kinds = {"multi_label_classification": "labels", "regression": "number"}
    target = kinds.get(str(data.get("problem_type")), "number" if len(labels) == 1 else "label")
    facts: dict[str, Any] = {"mean": 0.0, "spread": 1.0} if target == "number" else {"labels": labels}
    task = validate(
        load_part(FOLDER, "classification").Config, {"kind": "classification", "train": [], "target": target}, str(path)
    )
    bare = config.bare()
    if family_of(bare) == "gpt":
        facts["framing"] = "tokenizer"
    style = task.build(load_tokenizer(folder), bare, facts).head()
    shape = {"family": family_of(bare), "body": resolved(bare), "head": resolved(style)}
    return TaskFile(task=resolved(task), facts=facts, model=shape)


def load_task(
    folder: Path, *, dtype: torch.dtype = torch.float32, settings: Mapping[str, Any] | None = None
) -> tuple[Task, nn.Module]:
    """The task, which knows its tokenizer, and the model of a folder that `save_task` wrote, or transformers with a
    head that we know. settings: instead of the task's own, where answering can change them (`TaskConfig.later`).
    UserError: settings that it cannot, and see `load_model`."""
    path, known = folder / TASK_FILE, _class_in(folder)
    if path.is_file() or known is None:
        said: TaskFile = validate(TaskFile, read_json(path), str(path))
    else:
        said = _said_by_transformers(folder, known[0])
    config = load_part(FOLDER, str(said.task.get("kind"))).Config
    if wrong := sorted((settings or {}).keys() - set(config.later)):
        raise UserError(
            f"of task {said.task['kind']}, answering can change {', '.join(sorted(config.later))}",
            got=", ".join(wrong),
        )
    task_config: TaskConfig = validate(config, {**said.task, **(settings or {})}, "task" if settings else str(path))
    read_as = torch.float32 if said.facts.get("in_own_unit") else dtype  # what is undone is undone in fp32
    model: Any = load_model(folder, dtype=read_as, form=None if said.model is None else _form(said))
    tokenizer = load_tokenizer(folder)
    body = model.config.body if isinstance(model, TaskModel) else model.config
    task = task_config.build(tokenizer, body, said.facts)
    task.reopen(model)
    return task, model.to(dtype).eval()


def _form(said: TaskFile) -> HeadedFormat:
    config: TaskShape = validate(TaskShape, said.model, TASK_FILE)
    kinds = {"label": "single_label_classification", "labels": "multi_label_classification", "number": "regression"}
    labels = said.facts.get("labels") or said.facts.get("tags")
    return HeadedFormat(config, labels, kinds.get(str(said.task.get("target"))))
