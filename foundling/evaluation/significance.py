"""How sure figures are: bootstrap intervals, paired comparisons, and the spread over seeds.

The bootstrap draws as many examples as there are, with repetition, and measures again (Efron 1979; for BLEU Koehn 2004,
"Statistical significance tests for machine translation evaluation"). It tells how much figures would change with other
examples of the same kind. How much they change with another seed of the training only other runs tell: `over_seeds`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from foundling.core.errors import UserError
from foundling.evaluation.metrics.base import Scored

DRAWS = 1000
_LEVEL = 0.05
"""Share of the draws that lie outside an interval, and the p below which a difference is none of chance's."""
_FEWEST_DRAWS = 100
"""With fewer the ends of a 95 % interval rest on one or two draws."""


@dataclass(frozen=True)
class Difference:
    """What b has more than a, of one figure."""

    a: float
    b: float
    low: float
    """Lower end of the 95 % interval of b - a."""
    high: float
    p: float
    """Two-sided: twice the share of draws on the rarer side of no difference. It falls below 0.05 where the interval
    leaves out 0."""
    verdict: Literal["better", "worse", "noise"]
    """Of b. noise: p is 0.05 or more."""

    @property
    def difference(self) -> float:
        return self.b - self.a


@dataclass(frozen=True)
class Spread:
    """A figure over several seeds."""

    mean: float
    std: float
    """Sample standard deviation."""
    num_seeds: int


def intervals(scored: Scored, draws: int = DRAWS, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % percentile interval of each figure, by the bootstrap over examples. The same seed gives the same interval.

    A figure that is undefined in a draw, as that of a rare label, is taken from the other draws. UserError: fewer than
    100 draws.
    """
    return {name: _interval(found) for name, found in _drawn([scored], draws, seed)[0].items()}


def compare(a: Scored, b: Scored, draws: int = DRAWS, seed: int = 0) -> dict[str, Difference]:
    """Paired bootstrap: b against a on the same draws of examples, for each figure that both have.

    UserError: other examples, other settings of the metric, fewer than 100 draws.
    """
    if a.num_examples != b.num_examples or a.examples != b.examples:
        raise UserError(
            "two sets of answers must be to the same examples, in the same order",
            got=f"other golds ({a.num_examples} and {b.num_examples} examples)",
        )
    if a.settings != b.settings:
        raise UserError(
            "two sets of answers must be measured by the same metric and settings",
            got=f"{a.settings!r} and {b.settings!r}",
        )
    whole_a, whole_b = a.figures(), b.figures()
    drawn_a, drawn_b = _drawn([a, b], draws, seed)
    found = {}
    for name in (name for name in whole_a if name in whole_b):
        difference = drawn_b[name] - drawn_a[name]
        low, high = _interval(difference)
        p = _two_sided(difference)
        gain = whole_b[name] - whole_a[name]
        if p >= _LEVEL or gain == 0:
            verdict: Literal["better", "worse", "noise"] = "noise"
        else:
            verdict = "better" if (gain > 0) == a.higher_is_better else "worse"
        found[name] = Difference(whole_a[name], whole_b[name], low, high, p, verdict)
    return found


def over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Mean and sample standard deviation of each figure. runs: the figures of each seed.

    UserError: fewer than two runs, other figures in one than in another.
    """
    if len(runs) < 2:
        raise UserError("a spread needs the figures of two seeds or more", got=len(runs))
    names = list(runs[0])
    for run in runs:
        if set(run) != set(names):
            raise UserError("all runs must have the same figures", got=", ".join(sorted(set(run) ^ set(names))))
    table = {name: np.array([run[name] for run in runs]) for name in names}
    return {name: Spread(float(x.mean()), float(x.std(ddof=1)), len(runs)) for name, x in table.items()}


def _drawn(scored: Sequence[Scored], draws: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Each figure on each draw [draws]; the draws are the same for all."""
    if draws < _FEWEST_DRAWS:
        raise UserError(f"a bootstrap needs {_FEWEST_DRAWS} draws or more", got=draws)
    random = np.random.default_rng(seed)
    number = scored[0].num_examples
    rows: list[list[dict[str, float]]] = [[] for _ in scored]
    for _ in range(draws):
        index_N = random.integers(number, size=number)
        for each, one in zip(rows, scored, strict=True):
            each.append(one.figures(index_N))
    return [{name: np.array([row[name] for row in each]) for name in each[0]} for each in rows]


def _interval(found: np.ndarray) -> tuple[float, float]:
    found = found[~np.isnan(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(found, [_LEVEL / 2, 1 - _LEVEL / 2])
    return float(low), float(high)


def _two_sided(difference: np.ndarray) -> float:
    """With one draw more on each side than there are: no finite number of draws shows that p is 0."""
    difference = difference[~np.isnan(difference)]
    rarer = min((difference <= 0).sum(), (difference >= 0).sum())
    return min(1.0, 2 * (int(rarer) + 1) / (len(difference) + 1))
