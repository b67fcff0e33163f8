"""What a metric is: golds and answers to figures, found by its file's name.

A metric file holds `Config(MetricConfig)`, whose fields are its settings, and `Config.build()` gives the `Metric`.
Golds and answers are plain values, one of each an example:

| metrics | a gold | an answer |
|---|---|---|
| accuracy, f1 | a label (str), or the labels of an example (list of str) | the same |
| mcc, semeval | a label | a label |
| correlation, regression | a number | a number |
| entity_f1 | a tag sequence (list of str), or entities (start, end, type) | the same |
| squad | the accepted texts (list of str; empty: no answer is right) | a text; "": no answer |
| bleu, chrf, rouge | the reference texts (list of str, or one str) | a text |
| calibration | a label | label -> probability (dict) |

Shares are in 0 .. 1. Only BLEU and chrF go from 0 to 100, as sacrebleu prints them.
"""

# Shapes: N = examples.

import hashlib
import json
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from foundling.core.config import PartConfig
from foundling.core.errors import UserError

FOLDER = "evaluation.metrics"


class Scored(Protocol):
    """Answers that were measured."""

    @property
    def num_examples(self) -> int: ...

    @property
    def settings(self) -> str:
        """The metric's settings, with what it found in these examples (the number of references): shown beside the
        figures."""
        ...

    @property
    def higher_is_better(self) -> bool: ...

    @property
    def examples(self) -> str:
        """Hash of the golds: answers to the same examples can be compared."""
        ...

    def figures(self, index_N: np.ndarray | None = None) -> dict[str, float]:
        """The figures by name, of all examples, or of those chosen by number, with repetition, as a bootstrap does.

        A draw is measured as if its examples were all there are. It has the same names as the whole; NaN stands where
        there is nothing to measure, as for a label that was not drawn.
        """
        ...


class Metric(Protocol):
    """Built from a metric's `Config`. It keeps nothing of what it scores."""

    @property
    def settings(self) -> str:
        """One line: what is computed and how."""
        ...

    @property
    def best(self) -> str:
        """Name of the main figure: what chooses a checkpoint."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether larger figures are better ones; true or false of all figures of a metric."""
        ...

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Scored:
        """Measures answers. UserError: not as many answers as golds, none at all, a value of another kind."""
        ...


class MetricConfig(PartConfig):
    """What every metric's config is."""

    def build(self) -> Metric:
        raise NotImplementedError(type(self))


@dataclass(frozen=True)
class Sums:
    """A `Scored` whose figures are a function of sums over examples: what most metrics return."""

    settings: str
    higher_is_better: bool
    examples: str
    statistics_N: np.ndarray
    """What each example adds, [N, ...]."""
    of_sums: Callable[[np.ndarray, int], dict[str, float]]
    """Figures from the sum [...] and the number of examples in it."""

    @property
    def num_examples(self) -> int:
        return len(self.statistics_N)

    def figures(self, index_N: np.ndarray | None = None) -> dict[str, float]:
        chosen_N = self.statistics_N if index_N is None else self.statistics_N[index_N]
        return self.of_sums(chosen_N.sum(0), len(chosen_N))


def examples_of(golds: Sequence[Any], answers: Sequence[Any]) -> str:
    """The hash of the golds; UserError where there are none, or not one answer for each."""
    if len(golds) != len(answers):
        raise UserError("there must be one answer for each example", got=f"{len(answers)} for {len(golds)}")
    if not len(golds):
        raise UserError("there must be examples to score", got="none")
    return hashlib.sha256(json.dumps(list(golds), default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, AbstractSet):
        return sorted(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise UserError("golds and answers must be plain values", got=f"a {type(value).__name__}")
