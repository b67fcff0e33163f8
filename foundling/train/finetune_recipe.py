"""A fine-tuning, declared: what its recipe may say. Resolved and saved with every run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from foundling.core.config import Part, PartConfig, Strict, override, read_yaml, validate
from foundling.core.units import Count, Duration, length_of
from foundling.train.corpus_recipe import Tokenizer
from foundling.train.model_recipe import Model
from foundling.train.recipe import Checkpoint, Parallel, Stepping


class EarlyStop(Strict):
    """When a run ends before its length."""

    metric: str | None = None
    """Figure on dev that must get better: accuracy, f1_macro, nll, ...; None: evaluate.metric, else the task's main
    one."""
    patience: Annotated[int, Field(ge=1)] = 2
    """Evaluations on dev without a better one after which the run ends."""


class Train(Stepping):
    length: Annotated[Duration, length_of("epochs", "steps")] = Duration(3, "epochs")
    """How long to train: epochs are passes through the training examples."""
    batch: Annotated[Duration, length_of("examples")] = Duration(32, "examples")
    """Rows of a step over all processes."""
    early_stop: EarlyStop | None = None
    """Ends the run when dev gets no better; None: it has its full length. The best weights are kept either way."""
    layers: Literal["all", "none"] | Annotated[int, Field(ge=1)] = "all"
    """Which of the body's layers are trained: all; none, the head alone; or so many at the top. Embeddings count as
    the lowest layer."""
    unfreeze: Annotated[Duration, length_of("epochs", "steps", "share")] | None = None
    """Gradual unfreezing (Howard & Ruder 2018, arXiv:1801.06146, section 3.3): the head alone at first, then after each
    such stretch one more layer from the top; None: all of `layers` from the start."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the rate is multiplied by for each layer further down from the head (discriminative rates, ibid. 3.1); 1:
    all alike."""


class Evaluate(Strict):
    every: Annotated[Duration, length_of("epochs", "steps", "share")] = Duration(1, "epochs")
    """How often dev is answered and measured; also after the last step."""
    metric: str | None = None
    """Figure on dev that chooses the best weights; None: that of early_stop, else the task's main one."""
    examples: Count | None = None
    """At most so many dev examples during training; the final figures are of all. None: all."""


_USUAL: dict[str, dict[str, Any]] = {
    "optimizer": {"kind": "adamw", "weight_decay": 0.01, "betas": [0.9, 0.999]},
    "schedule": {"kind": "linear", "warmup": "10 %"},
}
"""What a fine-tuning has where its recipe is silent."""


class FinetuneRecipe(Strict):
    name: str
    """The run folder is runs/NAME."""
    out: str | None = None
    """The run folder, if not runs/NAME."""
    seed: int = 0
    """Decides the head's initial weights and the order of the examples."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """Runs with so many seeds, from `seed` on, each in a folder of its own; figures come with their mean and spread."""
    base: str | None = None
    """What is fine-tuned: a run, a model folder or a Hugging Face folder; with it comes its tokenizer."""
    model: Model | None = None
    """Instead of base: a family and a size, trained from initial weights on the examples alone."""
    tokenizer: Tokenizer | None = None
    """With model: a tokenizer folder, or one to train on the examples' texts: {kind: bpe, vocab_size: 8K}."""
    task: Annotated[PartConfig, Part("tasks")]
    """What is learnt, and from which files."""
    optimizer: Annotated[PartConfig, Part("optim", default="adamw")] = None  # type: ignore[assignment]
    """None: adamw. adamw's weight decay is 0.01 and its betas are 0.9 and 0.999 unless it says otherwise."""
    schedule: Annotated[PartConfig, Part("optim.schedules", default="linear")] = None  # type: ignore[assignment]
    """None: linear. linear's warm-up is 10 % unless it says otherwise."""
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    checkpoint: Checkpoint = Checkpoint(keep=1)
    parallel: Parallel = Parallel()
    track: tuple[Annotated[PartConfig, Part("train.track")], ...] = ()
    """Where metrics go besides metrics.jsonl: tensorboard."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        for key, usual in _USUAL.items():  # also where a recipe says something else of the same part
            given = {"kind": value[key]} if isinstance(value.get(key), str) else value.get(key) or {}
            if isinstance(given, Mapping) and given.get("kind", usual["kind"]) == usual["kind"]:
                value[key] = {**usual, **given}
        track = value.get("track")
        if isinstance(track, list | tuple):
            value["track"] = [t for t in track if t != "jsonl"]
        return value

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _rewinds_have_checkpoints(self) -> Self:
        self.checkpoint.check(self.train.guard)
        return self

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Self:
        if (self.base is None) == (self.model is None):
            raise ValueError(
                "give base: a run, a model folder or a Hugging Face folder"
                if self.base is None
                else "give either base or model (which starts from initial weights)"
            )
        if (self.model is None) != (self.tokenizer is None):
            raise ValueError(
                "tokenizer comes with base; take it out"
                if self.model is None
                else "tokenizer is missing, for example {kind: bpe, vocab_size: 8K}"
            )
        if self.model is not None and self.model.start is not None:
            raise ValueError("what a run starts from is its base: base: DIR instead of model.from")
        if self.model is not None and (self.train.layers != "all" or self.train.unfreeze is not None):
            raise ValueError("train.layers and train.unfreeze are of a pretrained base")
        if self.train.early_stop is not None and not getattr(self.task, "dev", ()):
            raise ValueError("train.early_stop needs task.dev: examples that tell when to stop")
        stop = self.train.early_stop
        if stop and stop.metric and self.evaluate.metric and stop.metric != self.evaluate.metric:
            raise ValueError(
                "evaluate.metric and train.early_stop.metric are one figure, which chooses the best weights; give one; "
                f"got {self.evaluate.metric} and {stop.metric}"
            )
        return self

    @property
    def folder(self) -> Path:
        return Path(self.out or f"runs/{self.name}")


def read_finetune_recipe(path: Path | str, assignments: tuple[str, ...] = ()) -> FinetuneRecipe:
    """A recipe file with `key=value` overrides; every fault is told at once in one UserError."""
    path = Path(path)
    data = override(read_yaml(path), assignments)
    data.setdefault("name", path.stem)
    recipe: FinetuneRecipe = validate(FinetuneRecipe, data, str(path))
    return recipe
