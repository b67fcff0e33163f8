"""Which tokens of a row are predicted, and what stands in their place."""

# Shapes: T = tokens of a row, W = its words, M = chosen tokens.

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

Unit = Literal["token", "word", "span"]


class Masker:
    """Chooses units until the row's budget of tokens is spent, and replaces them 80/10/10 or as told.

    The budget is the rate times the tokens that may be chosen, rounded up or down by chance so that its mean is exact,
    and at least 1: a row without a target would be read for nothing.
    """

    def __init__(
        self,
        *,
        rate: float,
        mask_share: float,
        random_share: float,
        unit: Unit,
        span_end_rate: float,
        longest_span: int,
        mask_id: int,
        ordinary_ids: np.ndarray,
        vocab_size: int,
        starts: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        """starts: which tokens of a row begin a word, bool [T]; not needed for single tokens. ordinary_ids: those
        that may be chosen, and that stand in by chance. The rest is explained in `mlm.Config`."""
        self._rate, self._unit, self.mask_id = rate, unit, mask_id
        self._shares = (mask_share, mask_share + random_share)
        self._span_end_rate, self._longest_span = span_end_rate, longest_span
        self._ordinary_ids, self._starts = ordinary_ids, starts
        self._ordinary_V = np.zeros(vocab_size, dtype=bool)
        self._ordinary_V[ordinary_ids] = True

    def __call__(
        self, tokens_T: np.ndarray, fixed_T: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The tokens with their replacements, and the places of the chosen ones in order, int64 [M].

        fixed_T: bool, what frames the row and is never chosen. Special tokens within the text (unknown characters) are
        chosen only where there is nothing else.
        """
        free_T = self._ordinary_V[tokens_T] & ~fixed_T
        if not free_T.any():
            free_T = ~fixed_T
        free = np.flatnonzero(free_T)
        budget = min(len(free), max(1, math.floor(self._rate * len(free) + rng.random())))
        if self._unit == "token":
            chosen = np.sort(rng.permutation(free)[:budget])
            draws = rng.random(budget)
        else:
            chosen, draws = self._units(tokens_T, free_T, budget, rng)
            if self._unit == "word":  # its tokens are replaced each by itself, as BERT's whole-word masking does
                draws = rng.random(len(chosen))
        replaced = tokens_T.copy()
        to_mask, to_random = draws < self._shares[0], (draws >= self._shares[0]) & (draws < self._shares[1])
        replaced[chosen[to_mask]] = self.mask_id
        replaced[chosen[to_random]] = self._ordinary_ids[
            rng.integers(len(self._ordinary_ids), size=int(to_random.sum()))
        ]
        return replaced, chosen

    def _units(
        self, tokens_T: np.ndarray, free_T: np.ndarray, budget: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places of whole words or spans of words, and the number in [0, 1) of each place's span.

        Words are taken in a random order as long as they fit what is left of the budget (so a few more short words
        are chosen than long ones); a span is replaced alike (Joshi et al. 2020, arXiv:1907.10529).
        """
        assert self._starts is not None
        begins_T = (self._starts(tokens_T) | ~np.concatenate([[False], free_T[:-1]])) & free_T
        first_W = np.flatnonzero(begins_T)
        word_T = np.cumsum(begins_T) - 1
        length_W = np.bincount(word_T[free_T], minlength=len(first_W))
        draw_W = np.full(len(first_W), np.nan)
        left = budget
        for word in rng.permutation(len(first_W)):
            if left == 0:
                break
            number = rng.random()
            span = 1
            if self._unit == "span":
                span = min(int(rng.geometric(self._span_end_rate)), self._longest_span)
            for one in range(word, min(word + span, len(first_W))):
                if not np.isnan(draw_W[one]):
                    break  # spans do not run into each other
                if one > word and first_W[one] != first_W[one - 1] + length_W[one - 1]:
                    break  # nor over special tokens, into another segment
                if length_W[one] > left:
                    break
                draw_W[one], left = number, left - int(length_W[one])
        if left == budget:  # every word is longer than the budget: the shortest, so that there is a target
            draw_W[int(length_W.argmin())] = rng.random()
        taken_T = free_T & ~np.isnan(draw_W[np.maximum(word_T, 0)])
        chosen = np.flatnonzero(taken_T)
        return chosen, draw_W[word_T[chosen]]
