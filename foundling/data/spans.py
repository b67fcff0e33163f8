"""Plain text as pairs of a source and a target, for an encoder and decoder: spans cut out, or a text cut in two."""

# Shapes: T = tokens of a text, S = tokens of its source, U = tokens of its target.

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from foundling.data.order import Weights
from foundling.data.rows import Row, Rows, Stream

Cut = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""A text [T] to its source [S] and target [U]; S and U depend on T alone, so all batches have one shape."""


@dataclass(frozen=True)
class SourceRow(Row):
    """A row whose `tokens` are the target: what a decoder says to what an encoder reads."""

    source_tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """What the encoder reads, int64 [S]."""

    @property
    def num_tokens(self) -> int:
        """Of both sides."""
        return len(self.tokens) + len(self.source_tokens)


class CutRows:
    """`rows[i]` is sample i: a stretch of text, cut by the sample's own random numbers."""

    def __init__(
        self,
        streams: Sequence[Stream],
        weights: Weights | None,
        cut: Cut,
        *,
        text_tokens: int,
        row_length: int,
        seed: int,
    ) -> None:
        """text_tokens: T of each stretch; row_length: what source and target hold together at most."""
        self.row_length = row_length
        self._rows = Rows(streams, weights, row_length=text_tokens, extra_tokens=0, seed=seed)
        self.rows_per_stream = self._rows.rows_per_stream
        self._cut, self._seed = cut, seed

    @property
    def num_rows(self) -> int:
        return self._rows.num_rows

    def __getitem__(self, sample: int) -> SourceRow:
        row = self._rows[sample]
        source, target = self._cut(row.tokens, np.random.default_rng([self._seed % 2**64, sample]))
        lies = ((row.start, len(row.tokens)),)
        return SourceRow(row.sample, row.source, row.start, target, lies=lies, source_tokens=source)


@dataclass(frozen=True)
class Spans:
    """Random spans of a text (Raffel et al. 2020, arXiv:1910.10683, section 3.3.4 and figure 2).

    The text is an alternation of kept and lost spans; it begins with a kept one and ends with a lost one. How many
    tokens are lost and in how many spans follows from the text's length; where the spans lie is uniform over all ways.
    """

    noise_density: float
    """Share of the tokens that is lost, in (0, 1)."""
    mean_span_tokens: float
    """Mean length of a lost span, at least 1."""

    def counts(self, num_tokens: int) -> tuple[int, int]:
        """(lost tokens, spans) of a text of at least 2 tokens."""
        assert num_tokens >= 2, num_tokens
        num_lost = min(max(1, round(num_tokens * self.noise_density)), num_tokens - 1)
        num_spans = max(1, round(num_lost / self.mean_span_tokens))
        return num_lost, min(num_spans, num_lost, num_tokens - num_lost)

    def text_tokens(self, row_length: int) -> int:
        """The longest text whose source and target hold at most `row_length` tokens together; below 2: none does.

        Every token stands on one side, every span has its sentinel on both, and both sides end with the end token.
        """
        fits = lambda n: n < 2 or n + 2 * self.counts(n)[1] + 2 <= row_length
        num_tokens = row_length - 4
        while not fits(num_tokens):
            num_tokens -= 1
        return num_tokens

    def lost(self, num_tokens: int, rng: np.random.Generator) -> np.ndarray:
        """Which tokens are lost, bool [T]."""
        num_lost, num_spans = self.counts(num_tokens)
        lengths = np.empty(2 * num_spans, dtype=np.int64)
        lengths[0::2] = _parts(num_tokens - num_lost, num_spans, rng)
        lengths[1::2] = _parts(num_lost, num_spans, rng)
        return np.repeat(np.arange(2 * num_spans) % 2 == 1, lengths)

    def cut(
        self, tokens_T: np.ndarray, sentinels: np.ndarray, end_id: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Source: the text with a sentinel for each lost span. Target: each sentinel, then what it stands for.

        sentinels: ids, at least as many as spans, taken in order. Both sides end with `end_id`.
        """
        lost_T = self.lost(len(tokens_T), rng)
        ends = np.array([end_id])
        return (
            np.concatenate([_folded(tokens_T, lost_T, sentinels), ends]),
            np.concatenate([_folded(tokens_T, ~lost_T, sentinels), ends]),
        )


def _parts(total: int, num_parts: int, rng: np.random.Generator) -> np.ndarray:
    """`total` as a sum of positive whole numbers, each way of writing it equally likely."""
    cuts = np.sort(rng.choice(total - 1, num_parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _folded(tokens_T: np.ndarray, fold_T: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    """The tokens with each run of folded ones as one sentinel, the first run's first."""
    first_T = fold_T & ~np.concatenate([[False], fold_T[:-1]])
    found_T = tokens_T.copy()
    found_T[first_T] = sentinels[: int(first_T.sum())]
    return found_T[~fold_T | first_T]
