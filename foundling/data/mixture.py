"""Mixtures: which share of the samples each source gives, and how that changes while a run goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from foundling.core.errors import UserError


@dataclass(frozen=True)
class Phase:
    """From sample `first` on, sources are drawn in proportion to `shares` (not negative, not all zero)."""

    first: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Mixture:
    """How a run draws from its sources. Everything is counted in rows (samples) of the objective."""

    weights: tuple[float, ...] | None = None
    """Share of each source, any scale; None: its number of rows to the power of 1 / temperature."""
    temperature: float = 1.0
    """Flattens shares by size (Arivazhagan et al. 2019, arXiv:1907.05019, section 4.1): 1 in proportion to the rows,
    infinity all alike. Not used where weights are given."""
    max_epochs: tuple[float | None, ...] | None = None
    """How often each source is passed through at most; then the others share its part. None: no limit."""
    changes: tuple[tuple[float, tuple[float, ...]], ...] = ()
    """(share of the run, weights from there on), rising."""
    names: tuple[str, ...] = ()
    """Of the sources, for errors."""

    @property
    def is_plain(self) -> bool:
        """Whether it is the same from the first sample to the last, however long the run."""
        return not self.changes and (self.max_epochs is None or all(limit is None for limit in self.max_epochs))

    def phases(self, rows_per_source: Sequence[int], num_samples: int | None) -> list[Phase]:
        """The whole course over `num_samples`, which a plain mixture need not know.

        UserError where the limits on epochs leave no source before the run's end.
        """
        first = self.first_shares(rows_per_source)
        if self.is_plain:
            return [Phase(0, first)]
        assert num_samples is not None
        starts = [(0, first), *((round(at * num_samples), weights) for at, weights in self.changes), (num_samples, ())]
        left = [
            float("inf") if limit is None else limit * rows
            for limit, rows in zip(self.max_epochs or (None,) * len(first), rows_per_source, strict=True)
        ]
        found: list[Phase] = []
        for (start, weights), (end, _) in pairwise(starts):
            while start < end:
                open_weights = [w if rest >= 1 else 0.0 for w, rest in zip(weights, left, strict=True)]
                total = sum(open_weights)
                if not total:
                    raise _runs_dry(start, num_samples, weights, self.names)
                shares = tuple(w / total for w in open_weights)
                found.append(Phase(start, shares))
                lasts = [rest / share for rest, share in zip(left, shares, strict=True) if share]
                length = min(end - start, max(1, int(min(lasts)))) if min(lasts) != float("inf") else end - start
                left = [rest - share * length for rest, share in zip(left, shares, strict=True)]
                start += length
        return found

    def first_shares(self, rows_per_source: Sequence[int]) -> tuple[float, ...]:
        """What the sources are drawn in proportion to when the run begins; they add up to 1."""
        raw = self.weights or tuple(float(rows) ** (1 / self.temperature) for rows in rows_per_source)
        return tuple(weight / sum(raw) for weight in raw)


def _runs_dry(at: int, num_samples: int, weights: Sequence[float], names: Sequence[str]) -> UserError:
    used = [name for name, weight in zip(names, weights, strict=False) if weight] or ["all sources"]
    return UserError(
        "the mixture must last as long as the run",
        got=f"max_epochs of {', '.join(used)} used up after {100 * at / num_samples:.3g} % of it",
        do="raise max_epochs, add text or shorten train.length",
    )
