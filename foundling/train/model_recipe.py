"""The model that a recipe trains: a family and its shape, or the weights of a model folder."""

from importlib.resources import files
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from foundling.core.config import Strict
from foundling.core.errors import UserError
from foundling.core.registry import load_part, nearest
from foundling.models.vectors import Embeddings
from foundling.nn.ngrams import Ngrams
from foundling.train.dial import shape_of_depth


class Model(Strict):
    """A family and its shape, or the weights of a model folder."""

    family: str | None = None
    """Name of the family: gpt."""
    size: str | dict[str, Any] | None = None
    """A size by name (models/sizes.yaml), the fields of the family's config: {layers: 4, width: 256, heads: 4}, or
    those that differ from a named one's: {like: mini, init: xavier}."""
    depth: Annotated[int, Field(ge=1, le=256)] | None = None
    """The one dial, instead of `size`: layers, of which width, heads, rate, batch and length follow."""
    ngrams: Ngrams | None = None
    """gpt: embeddings of n-grams beside those of tokens: {orders: [2, 3], rows: 32K}. They save steps at no products'
    cost, most of all where tokens are characters; only foundling reads such a model. None: as `size` says."""
    start: Annotated[str | None, Field(alias="from")] = None
    """A run or model folder whose weights, shape and tokenizer the run starts from."""
    embeddings: Embeddings | None = None
    """Word vectors that the embedding starts from: a file, or {path: FILE, scale: auto}."""

    @field_validator("embeddings", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [
            name for name, v in (("size", self.size), ("depth", self.depth), ("from", self.start)) if v is not None
        ]
        if len(given) != 1:
            raise ValueError(f"give one of size, depth or from; got {' and '.join(given) or 'none'}{_instead(given)}")
        if self.start is not None and self.ngrams is not None:
            raise ValueError("give one of from and ngrams: the given model has its own embeddings")
        if self.start is not None and self.embeddings is not None:
            raise ValueError("give one of from and embeddings: the given model has embeddings already")
        if self.start is None:
            if self.family is None:
                raise ValueError("family is missing, for example gpt")
            self.fields(vocab_size=1, row_length=1)
        return self

    def fields(self, vocab_size: int, row_length: int) -> Any:
        """The family's Config for this vocabulary; `max_positions` is the row length unless the size says otherwise."""
        assert self.family is not None
        try:
            config = load_part("models", self.family).Config
        except UserError as error:
            raise ValueError(str(error)) from error
        shape = self.shape()
        if self.ngrams is not None:
            if "ngrams" not in config.model_fields:
                raise ValueError(f"ngrams are read by the family gpt; got {self.family}")
            shape["ngrams"] = self.ngrams
        shape.setdefault("max_positions", max(row_length, 1))
        return config.model_validate({**shape, "vocab_size": vocab_size})

    def shape(self) -> dict[str, Any]:
        if self.depth is not None:
            return dict(shape_of_depth(self.depth))
        own = dict(self.size) if isinstance(self.size, dict) else {"like": self.size}
        if "like" not in own:
            return own
        name, known = own.pop("like"), _sizes().get(self.family or "", {})
        if name not in known:
            hint = nearest(str(name), list(known))
            told = f"size must be one of {', '.join(known)}; got {name!r}"
            raise ValueError(told + (f"; did you mean {hint!r}?" if hint else ""))
        return {**known[name], **own}


def _instead(given: list[str]) -> str:
    """How the model of a recipe is replaced by a given one on the command line."""
    return "; from replaces the whole entry: 'model={from: DIR}' tokenizer=null" if "from" in given else ""


def _sizes() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(files("foundling.models").joinpath("sizes.yaml").read_text(encoding="utf-8"))
