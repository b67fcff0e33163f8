"""Whether probabilities of labels mean what they say.

- `ece`, expected calibration error (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599, section 2): answers are put
  into bins by confidence, the probability of the likeliest label; the mean distance between the confidence of a bin and
  its accuracy, weighted by the answers in it. It is never below 0, so noise makes it larger: it grows with the number
  of bins, and is larger on bootstrap draws than on the whole;
- `brier` (Brier 1950): the squared distance to the truth, summed over labels, 0 .. 2. For two labels it is twice what
  is computed of one of them alone;
- `nll`: minus the logarithm of the true label's probability, nats.
"""

# Shapes: N = examples, B = bins.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from foundling.core.errors import UserError
from foundling.evaluation.metrics._counts import single_labels
from foundling.evaluation.metrics.base import MetricConfig, examples_of

_LEAST = float(np.finfo(np.float64).eps)
"""A true label that was given less gets the loss of this: 36 nats."""
_SUM_TOLERANCE = 0.01
"""How far probabilities may be from adding up to 1: those of a hundred labels, rounded to four digits, may be."""


class Config(MetricConfig):
    """The bins of the calibration error."""

    kind: str = "calibration"
    """Name of the part."""
    bins: Annotated[int, Field(ge=1)] = 15
    """How many bins there are at most; 15 is Guo et al.'s."""
    binning: Literal["equal_mass", "equal_width"] = "equal_mass"
    """equal_mass: as many answers in each, those of one confidence together; equal_width: (0, 1/bins], ..., as Guo et
    al. have it, where most answers of a good classifier fall into the last."""

    def build(self) -> "Calibration":
        return Calibration(self)


@dataclass(frozen=True)
class Bin:
    """A point of the reliability curve."""

    confidence: float
    """Mean confidence of the answers in it."""
    accuracy: float
    """Share of them that are right."""
    num_examples: int


class Calibration:
    best = "ece"
    higher_is_better = False

    def __init__(self, config: Config) -> None:
        self.config = config
        kind = config.binning.replace("_", "-")
        self.settings = (
            f"expected calibration error of the likeliest label, {config.bins} {kind} bins; "
            "Brier score summed over labels; negative log-likelihood, nats"
        )

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> "CalibrationScored":
        """golds: labels. answers: label -> probability; a label that is not there has none.

        Of equally likely labels the first one counts as said. UserError: probabilities that are none, or do not add up
        to 1 within 0.01.
        """
        examples = examples_of(golds, answers)
        rows = [_row(gold, answer) for gold, answer in zip(single_labels(golds), answers, strict=True)]
        return CalibrationScored(self.settings, examples, self.config, *np.array(rows).T)


@dataclass(frozen=True)
class CalibrationScored:
    settings: str
    examples: str
    config: Config
    confidence_N: np.ndarray
    right_N: np.ndarray
    brier_N: np.ndarray
    nll_N: np.ndarray

    higher_is_better = False

    @property
    def num_examples(self) -> int:
        return len(self.nll_N)

    def figures(self, index_N: np.ndarray | None = None) -> dict[str, float]:
        chosen_N = np.arange(self.num_examples) if index_N is None else index_N
        ece = sum(one.num_examples * abs(one.confidence - one.accuracy) for one in self.curve(chosen_N))
        return {
            "ece": ece / len(chosen_N),
            "brier": float(self.brier_N[chosen_N].mean()),
            "nll": float(self.nll_N[chosen_N].mean()),
        }

    def curve(self, index_N: np.ndarray | None = None) -> list[Bin]:
        """The reliability curve: the bins that hold answers, from the least confident on."""
        chosen = slice(None) if index_N is None else index_N
        return reliability_curve(self.confidence_N[chosen], self.right_N[chosen], self.config)


def reliability_curve(confidence_N: np.ndarray, right_N: np.ndarray, config: Config) -> list[Bin]:
    """Of answers with a confidence in 0 .. 1 that are right (1) or wrong (0): the bins that hold some, from the least
    confident on."""
    bin_N = np.searchsorted(_upper_bounds(confidence_N, config), confidence_N, side="left")
    number_B = np.bincount(bin_N)
    sums = [np.bincount(bin_N, each) for each in (confidence_N, right_N)]
    return [
        Bin(float(confidence / number), float(right / number), int(number))
        for confidence, right, number in zip(*sums, number_B, strict=True)
        if number
    ]


def _upper_bounds(confidence_N: np.ndarray, config: Config) -> np.ndarray:
    """The highest confidence of each bin but the last."""
    if config.binning == "equal_width":
        return np.linspace(0, 1, config.bins + 1)[1:-1]
    last = np.ceil(len(confidence_N) * np.arange(1, config.bins) / config.bins).astype(np.int64) - 1
    return np.sort(confidence_N)[np.maximum(last, 0)]


def _row(gold: str, answer: Any) -> tuple[float, float, float, float]:
    """Confidence, whether it is right, Brier score, negative log-likelihood."""
    if not isinstance(answer, Mapping) or not answer:
        raise UserError("an answer must be a mapping from labels to probabilities", got=f"{answer!r:.60}")
    try:
        each = np.array([float(value) for value in answer.values()])
    except (TypeError, ValueError) as error:
        raise UserError(f"a probability must be a number: {error}") from error
    if not (np.all((each >= 0) & (each <= 1)) and abs(each.sum() - 1) <= _SUM_TOLERANCE):
        raise UserError("probabilities must lie in 0 .. 1 and add up to 1", got=f"{dict(answer)!r:.80}")
    true = float(answer.get(gold, 0.0))
    said = list(answer)[int(each.argmax())]
    brier = float(each @ each) - true**2 + (1 - true) ** 2
    return float(each.max()), float(said == gold), brier, -float(np.log(max(true, _LEAST)))
