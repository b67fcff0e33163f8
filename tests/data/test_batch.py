from dataclasses import replace

import torch

from foundling.data.batch import row_groups, rows_batch


def bounds(*lengths: int) -> torch.Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)


def test_row_groups_join_neighbours_of_one_length_only() -> None:
    assert row_groups(bounds(4, 4, 3, 4)) == [(0, 2, 4), (8, 1, 3), (11, 1, 4)]
    assert row_groups(bounds(7)) == [(0, 1, 7)]
    assert row_groups(bounds(1, 2, 3)) == [(0, 1, 1), (1, 1, 2), (3, 1, 3)]
    assert row_groups(torch.zeros(1, dtype=torch.int32)) == []


def test_row_groups_cover_all_tokens_once() -> None:
    lengths = torch.randint(1, 4, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    covered = 0
    for start, num_rows, length in row_groups(bounds(*lengths)):
        assert start == covered
        covered += num_rows * length
    assert covered == sum(lengths)


def test_rows_batch_lays_rows_one_after_another() -> None:
    tokens = torch.arange(15).view(3, 5)
    batch = rows_batch(tokens[:, :-1], tokens[:, 1:], samples_R=(7, 8, 9), sources_R=(0, 1, 0))
    assert batch.tokens_N.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]
    assert batch.targets_M.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14]
    assert batch.positions_N.tolist() == [0, 1, 2, 3] * 3
    assert batch.bounds_R1.tolist() == [0, 4, 8, 12]
    assert batch.bounds_R1.dtype == torch.int32
    assert (batch.num_tokens, batch.num_targets, batch.num_rows, batch.max_row_length) == (12, 12, 3, 4)
    moved = batch.to(torch.device("meta"))
    assert moved.tokens_N.device.type == moved.bounds_R1.device.type == "meta"
    assert (moved.samples_R, moved.sources_R) == ((7, 8, 9), (0, 1, 0))


def test_losses_belong_to_the_rows_of_their_targets() -> None:
    tokens = torch.arange(15).view(3, 5)
    batch = rows_batch(tokens[:, :-1], tokens[:, 1:], sources_R=(0, 1, 0))
    assert batch.rows_of_losses(12).tolist() == [0] * 4 + [1] * 4 + [2] * 4, "a target at each token"
    assert batch.rows_of_losses(3).tolist() == [0, 1, 2], "one loss a row"
    chosen = replace(batch, targets_M=tokens[0, :3], target_index_M=torch.tensor([1, 4, 7]))
    assert chosen.rows_of_losses(3).tolist() == [0, 1, 1], "as many targets as rows, but not one each"
    found = chosen.losses_by_source(torch.tensor([1.0, 2.0, 4.0]), 3)
    assert found.tolist() == [[1.0, 1.0], [6.0, 2.0], [0.0, 0.0]]
