"""What tells that a step is out of the ordinary: a loss or gradient that is not finite, or far above those of the last
steps."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from foundling.train.recipe import Guard as GuardConfig

Finding = Literal["", "spike", "non_finite"]
FINDINGS: tuple[Finding, ...] = ("", "spike", "non_finite")
"""What a step may be found to be, the gravest last; "": as it should be."""

_LEAST_SIGMA = 1e-3
"""Of logarithms: values that hardly differ make no spike of a rise of a few thousandths."""
_LEAST_VALUE = 1e-30


@dataclass
class Guard:
    """What a run remembers of its last steps, and what became of those out of the ordinary. A checkpoint holds it."""

    passed_over: list[int]
    """Whole batches of each stretch's order that no step takes (again), so far: steps take those behind them."""
    losses: list[float] = field(default_factory=list)
    """Of the last steps taken, at most the recipe's `window`."""
    gradient_norms: list[float] = field(default_factory=list)
    warned: int = 0
    skipped: int = 0
    rewound: int = 0

    def note(self, loss: float, gradient_norm: float, config: GuardConfig) -> None:
        """Remembers a step that is taken."""
        self.losses = [*self.losses, loss][-config.window :]
        self.gradient_norms = [*self.gradient_norms, gradient_norm][-config.window :]

    def heights(self, loss: float, gradient_norm: float) -> tuple[float, float]:
        """How far a step's loss and gradient norm lie above those of the last steps (`height`)."""
        return height(loss, self.losses), height(gradient_norm, self.gradient_norms)

    def finding(self, loss: float, gradient_norm: float, config: GuardConfig) -> Finding:
        """What a step with this loss and gradient norm is; nothing is a spike before half a window was seen."""
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return "non_finite"
        if config.spike == "ignore" or len(self.losses) < config.window / 2:
            return ""
        return "spike" if max(self.heights(loss, gradient_norm)) > config.threshold else ""

    @property
    def counts(self) -> dict[str, int]:
        """What became of the steps out of the ordinary, and how many batches were passed over for them."""
        return {
            "warned": self.warned,
            "skipped": self.skipped,
            "rewound": self.rewound,
            "batches_passed_over": sum(self.passed_over),
        }

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def height(value: float, recent: Sequence[float]) -> float:
    """How many standard deviations a positive value lies above the mean of recent ones (at least two, none of them the
    value itself), all of them as logarithms.

    The score is ZClip's (Kumar et al. 2025, arXiv:2504.02507) over a window as in OLMo-core's skipped steps.
    Logarithms, since losses and gradient norms scatter in proportion to their size, with a long tail upwards; mean and
    standard deviation, since a median's deviation is blind to that tail (docs/log.md).
    """
    logs = np.log(np.maximum(recent, _LEAST_VALUE))
    sigma = max(_LEAST_SIGMA, float(np.std(logs, ddof=1)))
    return (math.log(max(value, _LEAST_VALUE)) - float(np.mean(logs))) / sigma
