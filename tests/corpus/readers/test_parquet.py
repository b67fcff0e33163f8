"""Rows of Parquet files, whole and damaged."""

import datetime
import decimal
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foundling.corpus.readers.base import Record
from foundling.corpus.streams import Stream
from tests.corpus.readers.made import problems, read, settled, texts, written


def table(folder: Path, columns: dict, row_group_size: int = 2) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def test_rows_and_their_other_columns(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        {
            "id": [1, 2, 3],
            "content": ["a", None, "字"],
            "when": [datetime.datetime(2020, 1, 2)] * 3,
            "image": [b"bytes"] * 3,
            "scores": [[1.0, float("nan")]] * 3,
            "price": [decimal.Decimal("1.50")] * 3,
        },
    )
    items = read("parquet", path)
    assert texts(items) == ["a", "字"]
    assert isinstance(items[0], Record)
    assert items[0].meta == {"id": 1, "when": "2020-01-02T00:00:00", "scores": [1.0, None], "price": "1.50"}
    json.dumps(items[0].meta, allow_nan=False)
    assert problems(items) == [("no_text", "row 2 has no text in 'content'")]
    assert settled("parquet", path).text_field == "content"


def test_kinds_of_text_columns(tmp_path: Path) -> None:
    values = ["one", "two"]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert texts(read("parquet", table(tmp_path, {"text": pa.array(values).cast(kind)}))) == values
    as_bytes = table(tmp_path, {"text": pa.array([b"one", b"two"])})
    assert texts(read("parquet", as_bytes, text_field="text")) == values


def test_a_damaged_row_group_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    path = table(tmp_path, {"text": [f"text {n}" for n in range(10)]})
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(2).column(0).data_page_offset
    data[start : start + 20] = b"\xff" * 20
    items = read("parquet", written(tmp_path, "b.parquet", bytes(data)))
    assert texts(items) == [f"text {n}" for n in (0, 1, 2, 3, 6, 7, 8, 9)]
    assert [item.suffix for item in items if isinstance(item, Record)] == [f":{n}" for n in (1, 2, 3, 4, 7, 8, 9, 10)]
    assert [kind for kind, _ in problems(items)] == ["damaged_file"]
    assert "rows 5 to 6 could not be read" in problems(items)[0][1]


def test_what_is_no_parquet_or_has_no_text(tmp_path: Path) -> None:
    whole = table(tmp_path, {"text": ["a"] * 100}).read_bytes()
    for data in (whole[:-50], b"PAR1", b"", b"something else"):
        assert problems(read("parquet", written(tmp_path, "b.parquet", data)))[0][0] == "damaged_file"
    numbers = table(tmp_path, {"n": [1, 2], "left": ["a", "b"], "right": ["a", "b"]})
    assert problems(read("parquet", numbers))[0][0] == "no_text_field"
    assert "n, left, right" in problems(read("parquet", numbers))[0][1]
    assert "must have the column 'body'" in problems(read("parquet", numbers, text_field="body"))[0][1]


def test_compressed_as_a_whole(tmp_path: Path) -> None:
    path = written(tmp_path, "a.parquet.gz", gzip.compress(table(tmp_path, {"text": ["a", "b", "c"]}).read_bytes()))
    assert texts(read("parquet", path)) == ["a", "b", "c"]


def test_progress_ends_at_the_files_size(tmp_path: Path) -> None:
    path = table(tmp_path, {"text": ["a"] * 1000}, row_group_size=100)
    stream, seen = Stream(path), []
    for _ in settled("parquet", path).build().read(stream):
        seen.append(stream.consumed_bytes)
    assert seen == sorted(seen)
    assert seen[-1] == path.stat().st_size


def test_cells_that_python_cannot_hold_cost_no_row(tmp_path: Path) -> None:
    for when in (pa.array([1, 2], pa.timestamp("ns")), pa.array([0, 253402300800], pa.timestamp("s"))):
        assert texts(read("parquet", table(tmp_path, {"text": ["a", "b"], "when": when}))) == ["a", "b"]
    torn = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
    assert texts(read("parquet", table(tmp_path, {"text": torn}))) == ["caf\ufffd"]
