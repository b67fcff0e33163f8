"""Laws of cutting spans out of a text."""

import numpy as np
import pytest

from foundling.data.spans import CutRows, Spans
from tests.tiny import ArrayStream

SENTINELS = np.arange(1000, 1100)
END = 999


def put_back(source: np.ndarray, target: np.ndarray) -> list[int]:
    """The text again: each sentinel of the source gives way to what follows it in the target."""
    found: list[int] = []
    for token in source[:-1].tolist():
        if token not in SENTINELS:
            found.append(token)
            continue
        place = target.tolist().index(token) + 1
        while target[place] not in SENTINELS and target[place] != END:
            found.append(int(target[place]))
            place += 1
    return found


@pytest.mark.parametrize(("density", "mean_span"), [(0.15, 3.0), (0.5, 1.0), (0.9, 5.0), (0.15, 100.0)])
@pytest.mark.parametrize("num_tokens", [2, 3, 17, 100])
def test_source_and_target_are_the_text_and_their_lengths_are_its_lengths_alone(
    density: float, mean_span: float, num_tokens: int
) -> None:
    spans = Spans(density, mean_span)
    num_lost, num_spans = spans.counts(num_tokens)
    text = np.arange(num_tokens)
    for seed in range(20):
        source, target = spans.cut(text, SENTINELS, END, np.random.default_rng(seed))
        assert len(source) == num_tokens - num_lost + num_spans + 1
        assert len(target) == num_lost + num_spans + 1
        assert put_back(source, target) == text.tolist()
        for side in (source, target):
            assert side[-1] == END
            assert [t for t in side if t in SENTINELS] == SENTINELS[:num_spans].tolist()


def test_lost_share_and_span_length_are_those_asked_for() -> None:
    spans = Spans(0.15, 3.0)
    num_lost, num_spans = spans.counts(10_000)
    assert num_lost == 1500
    assert num_spans == 500
    lost = spans.lost(10_000, np.random.default_rng(0))
    assert lost.sum() == 1500
    assert (np.diff(lost.astype(int)) == 1).sum() == 500


def test_every_way_of_cutting_is_equally_likely() -> None:
    """8 tokens, 4 lost in 2 spans: 3 ways to part the kept ones times 3 to part the lost ones."""
    spans, rng = Spans(0.5, 2.0), np.random.default_rng(0)
    seen: dict[tuple[bool, ...], int] = {}
    for _ in range(9000):
        key = tuple(spans.lost(8, rng).tolist())
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 9
    assert all(900 < count < 1100 for count in seen.values())


@pytest.mark.parametrize("row_length", [6, 7, 12, 64, 256, 512])
def test_the_longest_text_that_fits_a_row(row_length: int) -> None:
    spans = Spans(0.15, 3.0)
    sizes = {n: n + 2 * spans.counts(n)[1] + 2 for n in range(2, row_length)}
    assert spans.text_tokens(row_length) == max(n for n, size in sizes.items() if size <= row_length)
    assert Spans(0.15, 3.0).text_tokens(5) < 2


def test_a_sample_is_a_function_of_seed_and_number() -> None:
    spans = Spans(0.3, 2.0)
    cut = lambda tokens, rng: spans.cut(tokens, SENTINELS, END, rng)

    def rows(seed: int) -> CutRows:
        return CutRows([ArrayStream(600)], None, cut, text_tokens=20, row_length=30, seed=seed)

    one, two, other = rows(-1), rows(-1), rows(1)
    assert [two[i].source_tokens.tolist() for i in (7, 3)] == [one[i].source_tokens.tolist() for i in (7, 3)]
    assert one[7].source_tokens.tolist() != other[7].source_tokens.tolist()
    assert one.num_rows == 30
    assert one.row_length == 30
    # the second time that a text comes, it is cut in another way
    again = next(i for i in range(30, 60) if one[i].start == one[0].start)
    assert put_back(one[again].source_tokens, one[again].tokens) == put_back(one[0].source_tokens, one[0].tokens)
    assert one[again].source_tokens.tolist() != one[0].source_tokens.tolist()
