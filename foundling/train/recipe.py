"""The run, declared: what a recipe file may say. Resolved and saved with every run."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from foundling.core.config import Part, PartConfig, Strict, override, read_yaml, validate
from foundling.core.registry import load_part, part_names
from foundling.core.units import Count, Duration, Share, length_of
from foundling.models.base import family_of
from foundling.models.hub import find_model_dir, load_config
from foundling.train.corpus_recipe import Corpus, Tokenizer
from foundling.train.model_recipe import Model


class Phase(Strict):
    """A part of the run with rows or batches of its own size."""

    share: Annotated[Share, Field(gt=0, le=1)]
    """Share of the run's steps, in (0, 1] or in %."""
    sequence_length: Annotated[Count, Field(ge=2)] | None = None
    """Tokens of a row; None: train.sequence_length."""
    batch: Annotated[Duration, length_of("tokens", "examples")] | None = None
    """The whole batch of a step, in tokens or rows; None: train.batch."""


class Guard(Strict):
    """What happens at a step whose loss or gradient norm is out of the ordinary, before it is taken.

    `skip` passes over the step's rows; the step is taken with the next ones (as OLMo's skipped steps, but that no step
    is lost). `rewind` goes back to the last regular checkpoint and passes over all rows since (PaLM, Chowdhery et al.
    2022, arXiv:2204.02311, section 5.1). Either way the run is, to the bit, one whose data never held these rows.
    """

    non_finite: Literal["stop", "skip", "rewind"] = "stop"
    """At a loss or gradient that is not finite."""
    spike: Literal["ignore", "warn", "skip", "rewind", "stop"] = "warn"
    """At a loss or gradient norm far above those of the last steps."""
    threshold: Annotated[float, Field(gt=0)] = 6.0
    """How far that is: so many standard deviations above the mean of the last steps, all as logarithms."""
    window: Annotated[int, Field(ge=8)] = 128
    """How many steps are looked back on; spikes are told once half of them were taken."""
    limit: Annotated[int, Field(ge=0)] = 10
    """Steps skipped and rewinds of the whole run; one more ends it."""

    @property
    def rewinds(self) -> bool:
        """Whether the run may go back to a checkpoint."""
        return "rewind" in (self.non_finite, self.spike)


class Stepping(Strict):
    """How steps are taken, of whatever kind of run."""

    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Rows computed at once; auto: tuned to the machine. Changes speed and memory, not what is learnt."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Type of the matrix products; weights and optimizer state are fp32. auto: bf16 where it measures faster."""
    compile: bool | Literal["auto"] = "auto"
    """Whether blocks are compiled. auto: where a compiler is found and the run is long enough to win it back."""
    recompute: bool = False
    """Whether the backward pass computes each block again instead of keeping what it computed (activation
    checkpointing): up to a third more time, and for each block the memory of its input alone. The same is
    learnt, to the bit."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest gradient norm; a larger gradient is scaled down to it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Instead of the model's own `dropout`, which is 0 unless its size says otherwise (a given model has none, whatever
    it was trained with); with 0 no n-gram is left out either."""
    clip_value: Annotated[float, Field(gt=0)] | None = None
    """Largest size of each entry of the gradient, before its norm is taken; None: no bound."""
    average: Annotated[PartConfig, Part("optim.averages")] | None = None
    """A mean of the weights over steps ({kind: ema, decay: 0.999} or {kind: last, number: 5}), which is what is
    evaluated at the end and written; None: the last weights are."""
    guard: Guard = Guard()
    """What happens at spikes, and at values that are not finite."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Steps between lines of metrics."""


class Train(Stepping):
    length: Annotated[Duration, length_of("tokens", "steps", "epochs")] | None = None
    """How long to train; None: 20 tokens a weight."""
    sequence_length: Annotated[Count, Field(ge=2)] | None = None
    """Tokens of a row; None: by depth."""
    phases: tuple[Phase, ...] = ()
    """Row lengths or batches one after another. BERT's rows, with as many tokens a step in each: [{share: 0.9,
    sequence_length: 128}, {share: 0.1, sequence_length: 512}]; a ramp: [{share: 0.3, batch: 8K tokens}, {share: 0.7,
    batch: 32K tokens}]. Lengths in tokens (of a warm-up, between evaluations) count at the run's mean batch."""
    batch: Annotated[Duration, length_of("tokens", "examples")] | None = None
    """The whole batch of a step over all processes, in tokens or rows (`examples`); None: by length."""

    @model_validator(mode="after")
    def _phases_make_a_run(self) -> Self:
        if not self.phases:
            return self
        total = sum(phase.share for phase in self.phases)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of phases must add up to 1; got {total:g}")
        for key in ("sequence_length", "batch"):
            if getattr(self, key) is not None and all(getattr(phase, key) is not None for phase in self.phases):
                raise ValueError(
                    f"give either {key} or phases that each have their own; train.{key}=null takes a recipe's out"
                )
        if all(phase.sequence_length is None and phase.batch is None for phase in self.phases):
            raise ValueError("a phase must have a sequence_length or a batch of its own; got shares alone")
        one_length = len({phase.sequence_length or self.sequence_length for phase in self.phases}) == 1
        if self.batch is not None and self.batch.unit != "tokens" and not one_length:
            raise ValueError(f"with phases of several row lengths, batch must be in tokens; got {self.batch}")
        return self


class Evaluate(Strict):
    every: Annotated[Duration, length_of("steps", "tokens", "share", positive=True)] = Duration(200, "steps")
    """How often the validation loss is taken; also before the first and after the last step."""
    tokens: Count = 200_000
    """At most so many validation tokens each time."""


class Checkpoint(Strict):
    every: Annotated[Duration, length_of("steps", "tokens", "seconds", positive=True)] = Duration(300, "seconds")
    """How often the whole training state is written; also at the end and when the run is stopped."""
    keep: Annotated[int, Field(ge=1)] = 3
    """How many checkpoints stay; older ones are removed once a newer one is whole."""

    def check(self, guard: Guard) -> None:
        """ValueError where the guard would go back to checkpoints that come by the clock, at other steps each time."""
        if guard.rewinds and self.every.unit == "seconds":
            raise ValueError(
                "train.guard: a rewind goes back to a checkpoint at a known step; give checkpoint.every in steps, "
                f"such as 500 steps; got {self.every}"
            )


class Parallel(Strict):
    shard: Literal["auto"] = "auto"
    """FSDP2 over all processes that are no tensor group."""
    tensor: Annotated[int, Field(ge=1)] = 1
    """Processes that share each matrix."""


class Recipe(Strict):
    name: str
    """The run folder is runs/NAME."""
    out: str | None = None
    """The run folder, if not runs/NAME."""
    seed: int = 0
    """Decides the initial weights and the order of the data."""
    corpus: Corpus
    tokenizer: Tokenizer | None = None
    """With model.from it comes from there: None, or {path: DIR, extend: true} for one with more tokens."""
    model: Model
    objective: Annotated[PartConfig, Part("objectives")] = None  # type: ignore[assignment]
    """What is learnt; None: the family's own."""
    optimizer: Annotated[PartConfig, Part("optim", default="adamw")] = None  # type: ignore[assignment]
    """None: adamw."""
    schedule: Annotated[PartConfig, Part("optim.schedules", default="wsd")] = None  # type: ignore[assignment]
    """None: wsd."""
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    checkpoint: Checkpoint = Checkpoint()
    parallel: Parallel = Parallel()
    track: tuple[Annotated[PartConfig, Part("train.track")], ...] = ()
    """Where metrics go besides metrics.jsonl: tensorboard."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        for key, kind in (("objective", _own_objective(value)), ("optimizer", "adamw"), ("schedule", "wsd")):
            if value.get(key) is None:
                value[key] = {"kind": kind}
            elif isinstance(value[key], dict) and "kind" not in value[key]:
                value[key] = {"kind": kind, **value[key]}
        track = value.get("track")
        if isinstance(track, list | tuple):  # jsonl is always written; naming it is allowed
            value["track"] = [t for t in track if t != "jsonl"]
        return value

    @model_validator(mode="after")
    def _rewinds_have_checkpoints(self) -> Self:
        self.checkpoint.check(self.train.guard)
        return self

    @model_validator(mode="after")
    def _objective_is_of_the_family(self) -> Self:
        if self.model.start is not None and Path(self.model.start).is_dir():
            config: Any = load_config(find_model_dir(self.model.start))
            family, what = family_of(config), f"{self.model.start} is a {family_of(config)} model"
            if self.model.family not in (None, family):
                raise ValueError(f"model.family must be that of model.from, {family}; got {self.model.family}")
        elif self.model.family is not None:
            config, what = load_part("models", self.model.family).Config, f"model.family is {self.model.family}"
        else:
            return self
        if self.objective.kind not in config.objectives:
            raise ValueError(
                f"objective must be one that the model can be trained by ({', '.join(config.objectives)}), "
                f"since {what}; got {self.objective.kind}"
            )
        return self

    @model_validator(mode="after")
    def _tokenizer_comes_from_somewhere(self) -> Self:
        extends = self.tokenizer is not None and self.tokenizer.extend
        if extends and self.model.start is None:
            raise ValueError("tokenizer.extend needs model.from: the model that gets more tokens")
        if not extends and (self.tokenizer is None) == (self.model.start is None):
            raise ValueError(
                "tokenizer is missing, for example {kind: bpe, vocab_size: 16K}"
                if self.tokenizer is None
                else "tokenizer comes with model.from; take it out (tokenizer=null); extend: true if it has more tokens"
            )
        return self

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        """`tokenizer: DIR` is short for `tokenizer: {path: DIR}`."""
        return {"path": value} if isinstance(value, str) else value

    @property
    def folder(self) -> Path:
        return Path(self.out or f"runs/{self.name}")


def _own_objective(recipe: dict[str, Any]) -> str:
    """The objective that the recipe's model family is trained by unless another is named."""
    model = recipe.get("model")
    if isinstance(model, dict) and isinstance(model.get("from"), str) and Path(model["from"]).is_dir():
        return str(load_config(find_model_dir(model["from"])).objectives[0])
    family = model.get("family") if isinstance(model, dict) else None
    if isinstance(family, str) and family in part_names("models"):
        return str(load_part("models", family).Config.objectives[0])
    return "causal"  # the fault is told where the model is read


def read_recipe(path: Path | str, assignments: tuple[str, ...] = ()) -> Recipe:
    """A recipe file with `key=value` overrides; every fault is told at once in one UserError."""
    path = Path(path)
    data = override(read_yaml(path), assignments)
    data.setdefault("name", path.stem)
    return validate(Recipe, data, str(path))


def assignments(overrides: dict[str, Any]) -> tuple[str, ...]:
    """Keyword overrides of Python as the command line has them."""
    return tuple(f"{key}={yaml.safe_dump(value).removesuffix('...' + chr(10))}" for key, value in overrides.items())


def recipe_from(data: dict[str, Any]) -> Recipe:
    """A recipe from plain data, checked like a file's."""
    return validate(Recipe, data, "recipe")
