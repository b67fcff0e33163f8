"""A search over a recipe's keys, declared."""

import math
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from foundling.core.config import Strict, override, read_yaml, validate
from foundling.core.units import Count


class Search(Strict):
    """Values that one key may have: a range, or choices."""

    low: float | None = None
    """Least value of a range."""
    high: float | None = None
    """Greatest value of a range."""
    log: bool = False
    """Whether each factor counts alike (rates), and not each distance."""
    whole: bool = False
    """Whether values are whole numbers; low and high are, then, and both may be drawn."""
    choices: tuple[Any, ...] = ()
    """Instead of a range: the values themselves."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        ranged = self.low is not None and self.high is not None
        if ranged == bool(self.choices):
            raise ValueError("give either low and high, or choices")
        if ranged and not self.low < self.high:  # type: ignore[operator]
            raise ValueError(f"low must be below high; got {self.low:g} and {self.high:g}")
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if not all(map(math.isfinite, bounds)):
            raise ValueError("low and high must be finite")
        if self.whole and not (ranged and all(bound.is_integer() for bound in bounds)):
            raise ValueError("whole needs a low and a high that are whole numbers")
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError(f"log needs a low {'of 1 or more' if self.whole else 'above 0'}")
        return self


class Halving(Strict):
    """Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943): of each bracket's trials the best go on, from
    where they stand, and the others end."""

    factor: Annotated[int, Field(ge=2)] = 3
    """Of so many trials one goes on, for so many times its steps."""
    rungs: Annotated[int, Field(ge=1)] = 3
    """Lengths that a bracket has: the first is 1 / factor^(rungs - 1) of the run, the last all of it."""

    @property
    def bracket(self) -> int:
        """Trials of a bracket."""
        return int(self.factor ** (self.rungs - 1))


class TuneRecipe(Strict):
    name: str
    """The folder is runs/NAME."""
    out: str | None = None
    """The folder, if not runs/NAME."""
    recipe: str
    """The recipe whose keys are searched: of a pretraining or a fine-tuning."""
    settings: tuple[str, ...] = ()
    """What is laid over it for all trials: [corpus.train=corpora/mine, train.length=1M tokens]."""
    search: Annotated[dict[str, Search], Field(min_length=1)]
    """Dotted key -> its values: {optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}."""
    trials: Annotated[Count, Field(ge=1)] = 18
    """Settings that are tried, over all processes that share the storage."""
    metric: str | None = None
    """Figure of valid (pretraining) or dev (fine-tuning); None: bits per byte or loss, or the recipe's own on dev."""
    higher_is_better: bool | None = None
    """Whether a larger `metric` is better; None: known by itself, of all but figures that other packages add."""
    halving: Halving | None = Halving()
    """None: every trial has its full length."""
    seeds: Annotated[int, Field(ge=2)] = 3
    """Runs of the best settings and of the recipe as it is, to tell a gain from the noise of seeds."""
    seed: int = 0
    """Decides which settings are tried."""
    storage: str | None = None
    """Where the study lives: a database URL, shared by many machines; None: SQLite in the folder."""

    @property
    def folder(self) -> Path:
        return Path(self.out or f"runs/{self.name}")


def read_tune_recipe(path: Path | str, assignments: tuple[str, ...] = ()) -> TuneRecipe:
    """A file with `key=value` overrides; every fault is told at once in one UserError."""
    path = Path(path)
    data = override(read_yaml(path), assignments)
    data.setdefault("name", path.stem)
    recipe: TuneRecipe = validate(TuneRecipe, data, str(path))
    return recipe
