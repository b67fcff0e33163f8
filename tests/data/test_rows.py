"""Rows tile their stream."""

import numpy as np
import pytest

from foundling.core.errors import UserError
from foundling.data.rows import Rows
from tests.tiny import ArrayStream


@pytest.mark.parametrize(("num_tokens", "extra"), [(100, 0), (101, 1), (107, 1), (109, 0)])
def test_rows_of_an_epoch_tile_the_stream(num_tokens: int, extra: int) -> None:
    stream = ArrayStream(num_tokens)
    rows = Rows([stream], None, row_length=10, extra_tokens=extra, seed=3)
    assert rows.num_rows == (num_tokens - extra) // 10
    epoch = [rows[i] for i in range(rows.num_rows)]
    covered = np.sort(np.concatenate([row.tokens[:10] for row in epoch]))
    np.testing.assert_array_equal(covered, np.arange(10 * rows.num_rows))
    for i, row in enumerate(epoch):
        assert row.sample == i
        assert row.tokens.dtype == np.int64
        np.testing.assert_array_equal(row.tokens, np.arange(row.start, row.start + 10 + extra))


def test_without_weights_an_epoch_of_all_sources_holds_each_by_its_length() -> None:
    streams = [ArrayStream(321), ArrayStream(3 * 320 + 1)]
    rows = Rows(streams, None, row_length=10, extra_tokens=1, seed=0)
    number = 4 * 256
    sources = [rows[i].source for i in range(number)]
    assert sources.count(0) == number // 4
    weighted = Rows(streams, [3.0, 1.0], row_length=10, extra_tokens=1, seed=0)
    assert [weighted[i].source for i in range(number)].count(0) == 3 * number // 4


def test_any_sample_may_be_asked_for_first() -> None:
    def rows() -> Rows:
        return Rows([ArrayStream(200), ArrayStream(300)], [1.0, 1.0], row_length=8, extra_tokens=1, seed=5)

    walked = rows()
    all_of_them = [walked[i] for i in range(600)]
    for i in (599, 0, 256, 255, 300):
        alone = rows()[i]
        assert (alone.sample, alone.source, alone.start) == (i, all_of_them[i].source, all_of_them[i].start)
        np.testing.assert_array_equal(alone.tokens, all_of_them[i].tokens)


def test_a_stream_shorter_than_a_row_is_told() -> None:
    with pytest.raises(UserError, match=r"at least one row of 11 tokens; got 10 tokens in source 1; give more text"):
        Rows([ArrayStream(50), ArrayStream(10)], None, row_length=10, extra_tokens=1, seed=0)
