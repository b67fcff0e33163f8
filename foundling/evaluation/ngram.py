"""An interpolated modified Kneser-Ney n-gram model over token ids: the honest baseline of a neural model.

Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling" (Computer Speech & Language
13(4), section 4.1.6 and table 3): three discounts an order, estimated from the counts of counts; lower orders count in
how many contexts an n-gram stands, and the lowest is interpolated with the uniform distribution. Text is one stream of
documents with their end tokens, as a neural model reads it.

Counts lie in sorted arrays of 64-bit hashes, so an order takes 16 bytes for each distinct n-gram. Two of 50 million
n-grams share a hash with a chance of 1 in 15,000.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundling.core.errors import UserError

_MIX = np.uint64(0x9E3779B97F4A7C15)
_NO_TOKENS = np.uint64(0x5851F42D4C957F2D)
"""The hash of no tokens, which is the context of an n-gram of one."""


@dataclass(frozen=True)
class _Order:
    """Counts of one order. Everything about an n-gram is found by its hash, everything about a context by its own."""

    grams: np.ndarray
    """Hashes, uint64, sorted."""
    counts: np.ndarray
    """How often each stands (highest order), or after how many different tokens (lower orders); int64."""
    contexts: np.ndarray
    """Hashes of the n-grams' first n - 1 tokens, uint64, sorted, each once."""
    totals: np.ndarray
    """Sum of the counts in each context, fp64."""
    backoff: np.ndarray
    """Probability that each context leaves to the next lower order, fp64."""
    discounts: np.ndarray
    """[4], for counts of 0, 1, 2, and 3 or more."""

    def discounted(self, grams: np.ndarray, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(discounted probability of each n-gram in its context, what is left to the lower order), fp64."""
        at, known = _find(self.contexts, contexts)
        total = np.where(known, self.totals[at], 1.0)
        where, seen = _find(self.grams, grams)
        counts = np.where(seen, self.counts[where], 0)
        kept = np.maximum(counts - self.discounts[np.minimum(counts, 3)], 0.0)
        return np.where(known, kept / total, 0.0), np.where(known, self.backoff[at], 1.0)


class Ngram:
    """The trained model. `order`: tokens of the longest n-gram."""

    def __init__(self, orders: list[_Order], vocab_size: int) -> None:
        self._orders, self._vocab_size = orders, vocab_size

    @property
    def order(self) -> int:
        return len(self._orders)

    @property
    def num_ngrams(self) -> int:
        """Distinct n-grams of all orders."""
        return sum(len(order.grams) for order in self._orders)

    @classmethod
    def train(cls, ids: np.ndarray, vocab_size: int, order: int = 5) -> "Ngram":
        """From a stream of token ids [N]. order: tokens of the longest n-gram, at least 1.

        UserError: fewer tokens than an n-gram has.
        """
        if order < 1:
            raise UserError("the n-gram order must be 1 or more", got=order)
        if len(ids) < order + 1:
            raise UserError(f"an n-gram model of order {order} needs more than {order} tokens", got=len(ids))
        hashes = _hashes(ids, order)
        highest, first = np.unique(hashes[-1], return_index=True)
        counts = np.bincount(_find(highest, hashes[-1])[0], minlength=len(highest))
        orders: list[_Order] = []
        for n in range(order, 0, -1):
            # `first` is where each distinct n-gram stands for the first time, counted in n-grams of this order
            orders.append(_counted(hashes, n, highest, counts, first))
            if n > 1:
                suffixes = hashes[n - 2][first + 1]  # without the first token
                highest, counts = np.unique(suffixes, return_counts=True)
                whole = np.argsort(hashes[n - 2], kind="stable")
                first = whole[np.searchsorted(hashes[n - 2], highest, sorter=whole)]
        return cls(orders[::-1], vocab_size)

    def losses(self, ids: np.ndarray, history: Sequence[int] = ()) -> np.ndarray:
        """-log P of each token given those before it, nats, fp64 [N]. history: what stands before the first."""
        start = len(history)
        text = np.concatenate([np.asarray(history, dtype=np.int64), np.asarray(ids, dtype=np.int64)])
        probability = np.full(len(text), 1 / self._vocab_size)
        hashes = _hashes(text, self.order)
        for n, order in enumerate(self._orders, start=1):
            if len(text) < n:
                break
            contexts = np.full(1, _NO_TOKENS) if n == 1 else hashes[n - 2][:-1]
            kept, left = order.discounted(hashes[n - 1], np.broadcast_to(contexts, hashes[n - 1].shape))
            probability[n - 1 :] = kept + left * probability[n - 1 :]
        return -np.log(probability[start:])


def _hashes(ids: np.ndarray, order: int) -> list[np.ndarray]:
    """For n = 1 .. order the hash of each n-gram of the stream, uint64 [N - n + 1]."""
    tokens = (np.asarray(ids).astype(np.uint64) + np.uint64(1)) * _MIX
    tokens ^= tokens >> np.uint64(29)
    found: list[np.ndarray] = []
    for n in range(1, min(order, len(ids)) + 1):
        before = np.full(len(ids), _NO_TOKENS) if n == 1 else found[-1][:-1]
        mixed = (before * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(n)) ^ tokens[n - 1 :]
        mixed *= np.uint64(0x94D049BB133111EB)
        found.append(mixed ^ (mixed >> np.uint64(31)))
    return found


def _find(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place of each wanted value in the sorted array, whether it is there); the place is in range in any case."""
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return at, known[at] == wanted


def _counted(hashes: list[np.ndarray], n: int, grams: np.ndarray, counts: np.ndarray, first: np.ndarray) -> _Order:
    """The order of n-grams with these counts; first: a place in the stream where each of them stands."""
    context_of = np.full(len(grams), _NO_TOKENS) if n == 1 else hashes[n - 2][first]
    contexts, number = np.unique(context_of, return_inverse=True)
    discounts = _discounts(counts)
    totals = np.bincount(number, counts, minlength=len(contexts))
    taken = np.bincount(number, discounts[np.minimum(counts, 3)], minlength=len(contexts))
    return _Order(grams, counts.astype(np.int64), contexts, totals, taken / totals, discounts)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """[0, D1, D2, D3+] of an order (equation 26); 0.5 each where the counts of counts are too few to estimate them."""
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return np.clip(found, [0.0, 1e-3, 1e-3, 1e-3], [0.0, 1.0, 2.0, 3.0])
