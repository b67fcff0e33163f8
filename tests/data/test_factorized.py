"""Which tokens are predicted, and in which order; the memory beside a row."""

import numpy as np
import pytest

from foundling.core.errors import UserError
from foundling.data.factorized import Factorization, FactorizedRows
from tests.tiny import ArrayStream

LENGTH = 120


def draw(number: int, tokens: np.ndarray | None = None, **keys: object) -> np.ndarray:
    """Ranks of so many rows."""
    values: dict[str, object] = {"one_in": 6, "max_span_tokens": 5, "window_tokens": None, "context_ids": frozenset()}
    factorization = Factorization(**{**values, **keys})  # type: ignore[arg-type]
    tokens = np.arange(100, 100 + LENGTH) if tokens is None else tokens
    return np.stack([factorization.ranks(tokens, np.random.default_rng(i)) for i in range(number)])


def test_each_row_has_one_in_k_targets_and_their_ranks_are_an_order() -> None:
    for one_in, number in ((6, 20), (1, 120), (7, 17), (1000, 1)):
        for ranks in draw(20, one_in=one_in):
            np.testing.assert_array_equal(np.sort(ranks[ranks > 0]), np.arange(1, number + 1))


def test_every_place_is_a_target_as_often_as_any_other() -> None:
    """Over 120,000 tokens, to four standard deviations; the ends of a row too."""
    rate = (draw(1000) > 0).mean(0)
    assert rate.mean() == pytest.approx(1 / 6)
    assert abs(rate - 1 / 6).max() < 4 * (1 / 6 * 5 / 6 / 1000) ** 0.5


def test_every_order_is_as_likely() -> None:
    """The rank of a target says nothing of its place: the mean rank is the same all over."""
    ranks = draw(2000).astype(float)
    ranks[ranks == 0] = np.nan
    means = np.nanmean(ranks.reshape(-1, LENGTH // 6, 6).swapaxes(1, 2).reshape(-1, LENGTH // 6), axis=0)
    assert abs(means - 10.5).max() < 4 * (20**2 / 12) ** 0.5 / 2000**0.5


def test_spans_have_every_length_up_to_the_longest() -> None:
    """Where gaps are wide, spans seldom touch: runs of targets have lengths 1 to 5, each about as often."""
    rows = draw(100, np.arange(2400), one_in=24) > 0
    edges = np.diff(np.pad(rows, ((0, 0), (1, 1))).astype(int), axis=1)
    lengths = np.flatnonzero(edges.ravel() == -1) - np.flatnonzero(edges.ravel() == 1)
    counts = np.bincount(lengths, minlength=9)
    assert counts[1:6].min() > 0.12 * counts.sum()
    assert counts[6:].sum() < 0.1 * counts.sum()
    assert set(np.unique((draw(50, max_span_tokens=1, one_in=LENGTH) > 0).sum(1))) == {1}


def test_windows_are_predicted_one_after_the_other() -> None:
    for ranks in draw(50, window_tokens=40):
        place_of = np.argsort(ranks)[-20:]
        assert (np.diff(place_of // 40) >= 0).all()


def test_functional_tokens_are_never_targets_and_their_rows_have_as_many() -> None:
    tokens = np.arange(100, 100 + LENGTH)
    tokens[::3] = 7
    ranks = draw(200, tokens, context_ids=frozenset({7}))
    assert not ranks[:, ::3].any()
    assert ((ranks > 0).sum(1) == 20).all()
    assert not draw(3, np.full(LENGTH, 7), context_ids=frozenset({7})).any()
    few = np.full(LENGTH, 7)
    few[5:9] = 1
    assert ((draw(3, few, context_ids=frozenset({7})) > 0).sum(1) == 4).all()


def rows_of(num_tokens: int, memory: int, both_sides: bool, seed: int = 0) -> FactorizedRows:
    factorization = Factorization(6, 5, None, frozenset())
    return FactorizedRows(
        [ArrayStream(num_tokens)], None, factorization.ranks, row_length=12, memory_tokens=memory,
        both_sides=both_sides, seed=seed,
    )  # fmt: skip


@pytest.mark.parametrize("both_sides", [False, True])
def test_memory_is_the_text_beside_the_row(both_sides: bool) -> None:
    rows = rows_of(500, 20, both_sides)
    sides = set()
    for sample in range(rows.num_rows):
        row = rows[sample]
        np.testing.assert_array_equal(row.tokens, np.arange(row.start, row.start + 12))
        first = row.start + 12 if row.memory_follows else row.start - 20
        np.testing.assert_array_equal(row.memory, np.arange(first, first + 20))
        sides.add(row.memory_follows)
    assert sides == ({False, True} if both_sides else {False})
    starts = sorted(rows[sample].start for sample in range(rows.num_rows))
    assert starts == list(range(20, 500 - 20 * both_sides - 11, 12))


def test_a_sample_is_a_function_of_seed_and_number() -> None:
    one, two, other = rows_of(500, 0, False), rows_of(500, 0, False), rows_of(500, 0, False, seed=1)
    for sample in (100, 3, 17):
        np.testing.assert_array_equal(one[sample].ranks, two[sample].ranks)
        assert one[sample].memory is None
    epoch = one.num_rows
    again = {one[sample].start: one[sample].ranks for sample in range(epoch, 2 * epoch)}
    assert any((one[sample].ranks != again[one[sample].start]).any() for sample in range(epoch))
    assert any((one[sample].ranks != other[sample].ranks).any() for sample in range(epoch))


def test_too_little_text_for_memory_is_told() -> None:
    with pytest.raises(UserError, match=r"one row with its memory: 52 tokens; got 51 tokens in source 0"):
        rows_of(51, 20, True)
