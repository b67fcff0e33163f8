"""What a recipe trains on: its corpora and how they are mixed, and the tokenizer that reads them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from foundling.core.config import Part, PartConfig, Strict
from foundling.core.units import Duration, Share, length_of


class Source(Strict):
    """One corpus of a mixture."""

    path: str
    """A corpus folder, or raw text (a file, folder or glob), which is then built with the defaults."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share in the mixture, any positive scale; None for all sources: in proportion to their tokens."""
    max_epochs: Annotated[float, Field(gt=0)] | None = None
    """How often it is passed through at most; then the others take over its share."""


class Valid(Strict):
    """Where validation text comes from: a share of the training text, or text of its own."""

    fraction: Annotated[Share, Field(gt=0, lt=1)] | None = None
    """Share of the documents, by hash; holds for raw text (a corpus folder has its own split)."""
    path: str | None = None
    """A corpus folder or raw text, all of it used for validation."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.fraction is None) == (self.path is None):
            raise ValueError("give either fraction or path")
        return self


Weights = dict[str, Annotated[float, Field(ge=0)]]
"""Name -> share in a mixture, any scale, 0: not drawn from."""


class Change(Strict):
    """Other weights from some point of the run on."""

    at: Annotated[Duration, length_of("share")]
    """From which share of the run on: 60 %."""
    weights: Weights
    """The weights from there on; names left out are no longer drawn from."""


class Corpus(Strict):
    train: tuple[Source, ...]
    """What is trained on; a path, or a list of {path, weight, max_epochs}."""
    valid: Valid = Valid(fraction=0.01)
    """What is evaluated on during training."""
    mix: Literal["path", "source", "domain"] = "path"
    """What the mixture is made of: the paths of `train`, or the sources or domains of all their documents."""
    weights: Weights | None = None
    """Share of each source or domain by name, any scale (of paths: `weight` beside the path); None: by tokens."""
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """Without weights: shares are tokens to the power of 1 / temperature; 1: in proportion, larger: more alike."""
    max_epochs: Annotated[float, Field(gt=0)] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """How often anything is passed through at most: one number for all, or by name; then the others take over."""
    changes: tuple[Change, ...] = ()
    """Weights that change during the run: [{at: 60 %, weights: {news: 1, books: 3}}]."""

    @field_validator("train", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        entries = value if isinstance(value, list | tuple) else [value]
        if not entries:
            raise ValueError("expected at least one source")
        return [{"path": e} if isinstance(e, str) else e for e in entries]

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        if len({source.weight is None for source in self.train}) > 1:
            raise ValueError("give a weight to every source or to none")
        beside = [s.path for s in self.train if s.weight is not None or s.max_epochs is not None]
        if beside and self.mix != "path":
            raise ValueError(f"weights beside paths mix paths; with mix: {self.mix} give corpus.weights by name")
        if self.temperature != 1 and (self.weights or self.train[0].weight is not None):
            raise ValueError("give either weights or a temperature")
        if self.weights is not None and (self.train[0].weight is not None or not any(self.weights.values())):
            raise ValueError("weights must be given once, and one of them above 0")
        starts = [change.at.value for change in self.changes]
        if starts != sorted(set(starts)) or any(not any(change.weights.values()) for change in self.changes):
            raise ValueError("changes must come at rising shares of the run, each with a weight above 0")
        return self


class Tokenizer(Strict):
    """A tokenizer folder, or the settings of one to be trained on the corpus."""

    path: str | None = None
    """A tokenizer folder (ours, or any with tokenizer.json); with `kind`, where the trained one goes."""
    train: Annotated[PartConfig, Part("tokenizers")] | None = None
    """What to train when `path` is missing: {kind: bpe, vocab_size: 16K, ...}."""
    extend: bool = False
    """With model.from: `path` holds the model's own tokenizer with more tokens, for which the model gets rows."""

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """`{kind: bpe, vocab_size: 16K}` is short for `{train: {...}}`."""
        if isinstance(value, dict) and "kind" in value:
            rest = {k: v for k, v in value.items() if k not in ("path", "train", "extend")}
            return {"path": value.get("path"), "train": rest, "extend": value.get("extend", False)}
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.path is None and self.train is None:
            raise ValueError("expected a path, or a kind to train such as {kind: bpe, vocab_size: 16K}")
        if self.extend and (self.path is None or self.train is not None):
            raise ValueError("extend needs the path of a tokenizer that holds the model's own, and no kind")
        return self
