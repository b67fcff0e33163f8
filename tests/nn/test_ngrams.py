"""N-grams: which rows of the table a token reads."""

import pytest
import torch
from pydantic import ValidationError

from foundling.nn.ngrams import NgramEmbedding, Ngrams, ngram_ids

LENGTHS = (40, 1, 3, 300)


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of few kinds, so that n-grams come again, and their positions."""
    tokens_N = torch.randint(0, 4, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    return tokens_N, torch.cat([torch.arange(length) for length in LENGTHS])


def test_rows_are_those_of_equal_ngrams_within_their_row() -> None:
    config = Ngrams(orders=(2, 3, 5), rows=2**40)  # so many that no two n-grams of this text share one
    tokens_N, positions_N = rows()
    for place, (order, ids_N) in enumerate(zip(config.orders, ngram_ids(tokens_N, positions_N, config), strict=True)):
        assert ((ids_N // config.rows) == place).all()
        by_ngram: dict[tuple[int, ...], set[int]] = {}
        for n, (position, row) in enumerate(zip(positions_N.tolist(), ids_N.tolist(), strict=True)):
            read = tuple(tokens_N[n - min(position, order - 1) : n + 1].tolist())
            by_ngram.setdefault(read, set()).add(row)
        assert all(len(found) == 1 for found in by_ngram.values())
        assert len(set().union(*by_ngram.values())) == len(by_ngram) > 15


def test_rows_of_the_table_are_shared_evenly() -> None:
    config = Ngrams(orders=(2,), rows=256)
    every_pair_N = torch.cartesian_prod(torch.arange(256), torch.arange(256)).flatten()
    (ids_N,) = ngram_ids(every_pair_N, torch.arange(2).repeat(256 * 256), config)
    counts = ids_N[1::2].bincount(minlength=256)  # 65,536 pairs over 256 rows: 256 each, give or take 16
    assert counts.min() > 256 - 6 * 16
    assert counts.max() < 256 + 6 * 16


def test_embeddings_are_summed() -> None:
    layer = NgramEmbedding(Ngrams(orders=(2, 3), rows=8), width=5)
    tokens_N, positions_N = rows()
    first_N, second_N = ngram_ids(tokens_N, positions_N, layer.config)
    expected = layer.table.weight[first_N] + layer.table.weight[second_N]
    torch.testing.assert_close(layer(tokens_N, positions_N), expected)
    assert layer.reach == 2


def test_ngrams_are_left_out_whole_and_only_in_training() -> None:
    layer = NgramEmbedding(Ngrams(orders=(2, 3), rows=8, dropout=0.25), width=5)
    layer.table.weight.data[:8], layer.table.weight.data[8:] = 3.0, 30.0  # so that a sum tells which of the two is in
    tokens_N, positions_N = rows()
    torch.manual_seed(0)
    found_ND = layer(tokens_N, positions_N)
    assert (found_ND == found_ND[:, :1]).all()
    kinds, counts = found_ND[:, 0].unique(return_counts=True)
    torch.testing.assert_close(kinds, torch.tensor([0.0, 4.0, 40.0, 44.0]))
    shares = counts / len(tokens_N)
    torch.testing.assert_close(shares, torch.tensor([1, 3, 3, 9]) / 16, atol=0.1, rtol=0)
    assert (layer.eval()(tokens_N, positions_N) == 33).all()


@pytest.mark.parametrize("orders", [[], [1], [3, 2], [2, 2], [17]])
def test_orders_that_are_none_are_told(orders: list[int]) -> None:
    with pytest.raises(ValidationError, match="orders"):
        Ngrams.model_validate({"orders": orders})
