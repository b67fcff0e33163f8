"""From a fine-tuning's files to what trains: examples, rows, the model's shape and its first weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.core.files import hash_of, sha256_of
from foundling.core.log import logger
from foundling.data.rows import Row
from foundling.models.base import family_of
from foundling.models.hub import find_model_dir
from foundling.tasks.base import Task, TaskConfig
from foundling.tasks.files import Examples
from foundling.tasks.folder import load_base
from foundling.tasks.model import TaskModel, TaskShape, adopted
from foundling.tokenizers.base import Tokenizer, TokenizerConfig, load_tokenizer
from foundling.tokenizers.train import train_tokenizer
from foundling.train.finetune_recipe import FinetuneRecipe


@dataclass(frozen=True)
class TaskData:
    """What a fine-tuning trains and is measured on."""

    task: Task
    examples: dict[str, Examples[Any]]
    """Of each split that the task names: train, dev, test."""
    rows: Sequence[Row]
    """Of the training examples."""
    model_config: Any
    """Of the model that is trained: a body with its head, or a family's own."""
    start: Mapping[str, Tensor] | None
    """First weights by the model's names; None: initial values."""
    inputs: dict[str, str]
    """Files, base and tokenizer by hash, for the run's manifest."""

    @property
    def names(self) -> list[str]:
        return ["train"]

    @property
    def counts(self) -> dict[str, int]:
        """How much there is, for the run's manifest; rows that make no example where there are any."""
        left_out = {
            f"{split}_left_out": len(found.left_out) for split, found in self.examples.items() if found.left_out
        }
        return {**{f"{split}_examples": len(found) for split, found in self.examples.items()}, **left_out}

    def name_of(self, row: Row) -> str:
        """Where a training row comes from, so that a bad one can be looked up."""
        number = getattr(row, "example", row.start)
        return f"training example {number}: {str(self.task.describe(self.examples['train'][number]))[:200]}"


@cache
def _sha256_once(path: Path, written: int) -> str:
    """Of a file as it was written then: seeds and trials share a base."""
    return sha256_of(path)


def prepare(recipe: FinetuneRecipe, folder: Path) -> TaskData:
    """Reads the files, learns the labels, trains the tokenizer where one is asked for, and makes rows."""
    config = recipe.task
    assert isinstance(config, TaskConfig)
    base_dir = None if recipe.base is None else _base_dir(recipe.base)
    paths = {"train": config.train, "dev": config.dev, "test": config.test}
    examples = {split: config.read(found) for split, found in paths.items() if found}
    if empty := [split for split, found in examples.items() if not found]:
        raise UserError("each of a task's files must hold an example", got=f"none in {', '.join(empty)}")
    facts = config.learn(examples)
    inputs = {f"{split}/{file.name}": file.sha256() for split, found in examples.items() for file in found.files}
    if base_dir is not None:
        base: Any = load_base(base_dir)
        tokenizer = _tokenizer_of(base_dir)
        body = base.config.body if isinstance(base, TaskModel) else base.config
        if tokenizer.vocab_size > body.vocab_size:
            raise UserError(
                "the base's tokenizer must not have more tokens than its model",
                got=f"{tokenizer.vocab_size} against {body.vocab_size}",
            )
        files = sorted(path for path in base_dir.iterdir() if path.suffix in (".json", ".safetensors", ".bin"))
        inputs["base"] = hash_of({path.name: _sha256_once(path, path.stat().st_mtime_ns) for path in files})
    else:
        assert recipe.model is not None
        base, tokenizer = None, _tokenizer(recipe, folder, examples["train"], inputs)
        longest = config.max_length or 512
        body = recipe.model.fields(tokenizer.vocab_size, longest)
    inputs["tokenizer"] = tokenizer.sha256
    task = config.build(tokenizer, body, facts)
    rows = task.rows(examples["train"])
    _tell(examples, rows)
    head = task.head()
    if head is None:
        given = base.body if isinstance(base, TaskModel) else base
        if given is not base:
            logger.warning(
                "base: it was fine-tuned with a head on its body; an output matrix that it had before is not there any "
                "more, and its embedding answers instead"
            )
        start = None if given is None else {name: p.detach() for name, p in given.named_parameters()}
        return TaskData(task, examples, rows, body, start, inputs)
    shape = TaskShape(family=family_of(body), body=body.bare(), head=head)
    return TaskData(task, examples, rows, shape, None if base is None else adopted(base, shape), inputs)


def _base_dir(base: str) -> Path:
    try:
        return find_model_dir(base)
    except UserError as error:
        told = "" if Path(base).exists() else ", which does not exist"
        raise UserError(
            "base must be a run, a model folder or a Hugging Face folder", got=f"{base}{told}", do="give base=FOLDER"
        ) from error


def _tokenizer_of(folder: Path) -> Tokenizer:
    try:
        return load_tokenizer(folder)
    except UserError as error:
        if (folder / "tokenizer.json").exists():
            raise
        raise UserError(
            "the base must hold its tokenizer (tokenizer.json)", got=f"none in {folder}", do="copy it there"
        ) from error


def _tokenizer(recipe: FinetuneRecipe, folder: Path, examples: Sequence[Any], inputs: Mapping[str, str]) -> Tokenizer:
    """A given tokenizer, or one trained on the texts of the training examples."""
    wanted, task = recipe.tokenizer, recipe.task
    assert wanted is not None
    assert isinstance(task, TaskConfig)
    path = Path(wanted.path) if wanted.path else folder / "tokenizer"
    if wanted.train is None or (wanted.path and (path / "tokenizer.json").exists()):
        return load_tokenizer(path)
    assert isinstance(wanted.train, TokenizerConfig)
    texts = (text for example in examples for text in task.texts(example))
    return train_tokenizer(texts, wanted.train, path, inputs=dict(inputs), replace=wanted.path is None)


def _tell(examples: Mapping[str, Sequence[Any]], rows: Sequence[Row]) -> None:
    lengths = torch.tensor([row.num_tokens for row in rows]).float()
    logger.info(
        "examples: %s; %s rows of %.0f tokens on average, %d at most",
        ", ".join(f"{len(found):,} {split}" for split, found in examples.items()), f"{len(rows):,}",
        lengths.mean().item(), int(lengths.max().item()),
    )  # fmt: skip
