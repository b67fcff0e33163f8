"""The n-gram baseline against the textbook's formula in plain Python, and its laws."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from foundling.core.errors import UserError
from foundling.evaluation.ngram import Ngram

VOCAB = 12


def stream(number: int, seed: int = 0) -> np.ndarray:
    """Tokens that depend on the one before."""
    rng = np.random.default_rng(seed)
    ids = [0]
    for _ in range(number - 1):
        ids.append(int((ids[-1] * 3 + rng.choice([0, 0, 0, 1, 1, 2, 5])) % VOCAB))
    return np.array(ids)


def plain(train: list[int], order: int) -> "dict[int, Counter[tuple[int, ...]]]":
    """Counts of the highest order, and numbers of distinct left neighbours of the lower ones."""
    counts = {order: Counter(tuple(train[i : i + order]) for i in range(len(train) - order + 1))}
    for n in range(order - 1, 0, -1):
        counts[n] = Counter(gram[1:] for gram in counts[n + 1])
    return counts


def discount(counts: "Counter[tuple[int, ...]]") -> list[float]:
    n1, n2, n3, n4 = (sum(c == k for c in counts.values()) for k in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return [0, 0.5, 0.5, 0.5]
    y = n1 / (n1 + 2 * n2)
    raw = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return [0, *(min(max(d, 1e-3), k + 1) for k, d in enumerate(raw))]


def probability(counts: "dict[int, Counter[tuple[int, ...]]]", context: tuple[int, ...], token: int) -> float:
    n = len(context) + 1
    lower = 1 / VOCAB if n == 1 else probability(counts, context[1:], token)
    following = {g[-1]: c for g, c in counts[n].items() if g[:-1] == context}
    if not following:
        return lower
    d, total = discount(counts[n]), sum(following.values())
    left = sum(d[min(c, 3)] for c in following.values()) / total
    count = following.get(token, 0)
    return max(count - d[min(count, 3)], 0) / total + left * lower


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_the_formula(order: int) -> None:
    train, text = stream(400), stream(60, seed=1)
    counts, model = plain(train.tolist(), order), Ngram.train(train, VOCAB, order)
    found = model.losses(text)
    for i, token in enumerate(text.tolist()):
        context = tuple(text[max(0, i - order + 1) : i].tolist())
        assert found[i] == pytest.approx(-math.log(probability(counts, context, token)), rel=1e-9)


def test_probabilities_of_all_tokens_add_up_to_one() -> None:
    model = Ngram.train(stream(300), VOCAB, 3)
    for history in ([], [3], [4, 0], [11, 11], [2, 7]):
        total = sum(math.exp(-model.losses(np.array([token]), history)[0]) for token in range(VOCAB))
        assert total == pytest.approx(1.0, abs=1e-9)


def test_history_is_what_stands_before() -> None:
    model, text = Ngram.train(stream(300), VOCAB, 3), stream(40, seed=2)
    np.testing.assert_allclose(model.losses(text)[10:], model.losses(text[10:], text[:10].tolist()))
    np.testing.assert_allclose(model.losses(text)[10:], model.losses(text[10:], text[8:10].tolist()))


def test_longer_contexts_help_where_they_tell_something_and_unseen_text_costs_more() -> None:
    train, text = stream(4000), stream(500, seed=5)
    means = [Ngram.train(train, VOCAB, order).losses(text).mean() for order in (1, 2)]
    assert means[1] < means[0] - 0.5
    model = Ngram.train(train, VOCAB, 3)
    shuffled = np.random.default_rng(0).permutation(text)
    assert model.losses(text).mean() < model.losses(shuffled).mean() - 0.5


def test_counts_are_of_distinct_ngrams() -> None:
    train = stream(500)
    model = Ngram.train(train, VOCAB, 3)
    grams: dict[int, set[tuple[int, ...]]] = defaultdict(set)
    for n in (1, 2, 3):
        grams[n] = {tuple(train[i : i + n].tolist()) for i in range(len(train) - n + 1)}
    counted = sum(len(grams[n]) for n in (1, 2, 3))
    assert counted - 3 <= model.num_ngrams <= counted, "an n-gram at the very beginning has no left neighbour"


def test_bad_input() -> None:
    with pytest.raises(UserError, match="needs more than 5 tokens"):
        Ngram.train(np.arange(4), VOCAB, 5)
    with pytest.raises(UserError, match="1 or more"):
        Ngram.train(np.arange(40) % VOCAB, VOCAB, 0)
