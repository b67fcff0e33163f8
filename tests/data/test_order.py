"""Laws of the order: a bijection each epoch, exact shares, and nothing remembered."""

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from foundling.data.mixture import Phase
from foundling.data.order import Order, Permutation

WEIGHTS = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=5)


@given(st.integers(1, 3000), st.integers())
@settings(max_examples=60, deadline=None)
def test_a_permutation_hits_each_index_once(size: int, key: int) -> None:
    permutation = Permutation(size, key)
    assert sorted(permutation[i] for i in range(size)) == list(range(size))


def test_permutations_of_different_keys_differ_and_look_shuffled() -> None:
    size = 1000
    one, two = Permutation(size, 0, "epoch"), Permutation(size, 1, "epoch")
    first, second = [one[i] for i in range(size)], [two[i] for i in range(size)]
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 10
    assert sum(i == p for i, p in enumerate(first)) < 10
    assert sum(abs(a - b) == 1 for a, b in pairwise(first)) < 15, "neighbours are torn apart"
    mean_of_first_half = sum(first[: size // 2]) / (size // 2)
    assert abs(mean_of_first_half - size / 2) < 50


@given(st.integers(1, 500), st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_every_epoch_passes_through_each_row_once_in_its_own_order(num_rows: int, seed: int) -> None:
    order = Order([num_rows], [1.0], seed)
    epochs = [[order[e * num_rows + i][1] for i in range(num_rows)] for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(num_rows))
    if num_rows > 20:
        assert epochs[0] != epochs[1] != epochs[2]


@given(WEIGHTS, st.integers(0, 5), st.lists(st.integers(0, 5000), min_size=1, max_size=30), st.data())
@settings(max_examples=40, deadline=None)
def test_sample_i_is_independent_of_history(
    weights: list[float], seed: int, asked: list[int], data: st.DataObject
) -> None:
    rows = [data.draw(st.integers(1, 400)) for _ in weights]
    walked = Order(rows, weights, seed)
    jumped = [Order(rows, weights, seed)[i] for i in asked]
    assert [walked[i] for i in asked] == jumped
    sequence = Order(rows, weights, seed)
    all_of_them = [sequence[i] for i in range(max(asked) + 1)]
    assert [all_of_them[i] for i in asked] == jumped


@given(WEIGHTS, st.integers(0, 5), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_shares_are_exact_to_a_samples_rounding_at_each_blocks_end(
    weights: list[float], seed: int, blocks: int
) -> None:
    order = Order([97] * len(weights), weights, seed)
    number = blocks * Order._BLOCK
    counts = Counter(order[i][0] for i in range(number))
    for source, weight in enumerate(weights):
        # each source is rounded from what the earlier ones leave: one half for each that came before, at most
        assert abs(counts[source] - number * weight / sum(weights)) <= 0.5 * (source + 1) + 1e-6


@given(WEIGHTS, st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_each_source_of_a_mixture_is_passed_through_in_whole_epochs(weights: list[float], seed: int) -> None:
    rows = [13 + 7 * i for i in range(len(weights))]
    order = Order(rows, weights, seed)
    seen: list[list[int]] = [[] for _ in weights]
    number = 12 * Order._BLOCK
    for i in range(number):
        source, row = order[i]
        seen[source].append(row)
    for found, size in zip(seen, rows, strict=True):
        # order within a block is mixed, so an epoch ends within a block of its place: counts differ by the open ones
        counts = Counter(found)
        if found:
            open_epochs = -(-Order._BLOCK // size) + 1
            assert max(counts.values()) - min(counts[r] for r in range(size)) <= open_epochs


def test_different_seeds_differ() -> None:
    one, two = (Order([50, 80], [1.0, 2.0], seed) for seed in (0, 1))
    assert [one[i] for i in range(300)] != [two[i] for i in range(300)]
    alone, other = (Order([50], [1.0], seed) for seed in (0, 1))
    assert [alone[i] for i in range(50)] != [other[i] for i in range(50)]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_phases_have_their_own_shares_and_no_row_is_skipped_or_doubled_within_an_epoch(
    lengths: list[int], seed: int
) -> None:
    shares = [(0.5, 0.25, 0.25), (0.0, 0.9, 0.1), (1.0, 0.0, 0.0), (0.1, 0.2, 0.7)]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    total = sum(lengths)
    phases = [Phase(start, shares[i]) for i, start in enumerate(starts)] + [Phase(total, shares[0])]
    rows = [40, 70, 110]
    order = Order(rows, phases, seed)
    drawn = [order[i] for i in range(total)]
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        counts = Counter(source for source, _ in drawn[start : start + length])
        for source, share in enumerate(shares[i]):
            assert abs(counts[source] - length * share) <= 2.0
            assert share > 0 or not counts[source]
    for source, size in enumerate(rows):
        mine = [row for s, row in drawn if s == source]
        epochs, rest = divmod(len(mine), size)
        assert sorted(Counter(mine)[row] - epochs for row in range(size)) == [0] * (size - rest) + [1] * rest
        assert order.drawn(total)[source] == len(mine)
    jumped = Order(rows, phases, seed)
    assert [jumped[i] for i in range(total - 1, -1, -max(1, total // 20))] == drawn[:: -max(1, total // 20)]
