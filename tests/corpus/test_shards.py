"""The same rows give the same bytes, however they come."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundling.corpus import shards
from foundling.corpus.shards import DROPPED, ShardWriter, read_shards

ROWS = [
    {"id": str(i), "step": "s", "reason": "r", "detail": None if i % 3 else "d", "sample": "text 字 " * (i * 37 % 50)}
    for i in range(200)
]


def written(folder: Path, cuts: list[int]) -> list[bytes]:
    with ShardWriter(folder, "dropped", DROPPED) as writer:
        for start, end in zip([0, *cuts], [*cuts, len(ROWS)], strict=True):
            writer.write(pa.RecordBatch.from_pylist(ROWS[start:end], schema=DROPPED))
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@given(st.lists(st.integers(0, len(ROWS))).map(sorted))
@settings(max_examples=20, deadline=None)
def test_bytes_do_not_depend_on_batches(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_ROW_GROUP_BYTES", 9_000)
        patch.setattr(shards, "_SHARD_BYTES", 30_000)
        folder = tmp_path_factory.mktemp("shards")
        files = written(folder / "cut", cuts)
        assert files == written(folder / "whole", [])
        assert 1 < len(files) < 10
        assert [row for batch in read_shards(folder / "cut", "dropped", 7) for row in batch.to_pylist()] == ROWS


def test_nothing_written_is_no_folder(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "none", "x", DROPPED) as writer:
        writer.write(pa.RecordBatch.from_pylist([], schema=DROPPED))
    assert list(read_shards(tmp_path / "none", "x", 1)) == []
    assert not (tmp_path / "none").exists()
