"""Parquet, and the names of classes that Hugging Face's datasets keep in it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundling.core.errors import UserError
from tests.tasks.formats.made import read, rows, settled, written

ROWS: list[dict[str, Any]] = [
    {"text": "a", "label": 0, "ner_tags": [0, 1], "of": {"en": "x"}},
    {"text": "字", "label": 1, "ner_tags": [], "of": {"en": None}},
    {"text": None, "label": -1, "ner_tags": [1], "of": None},
]
CLASS = {"names": ["neg", "pos"], "_type": "ClassLabel"}


def table(features: dict[str, Any] | None = None) -> pa.Table:
    made = pa.Table.from_pylist(ROWS)
    told = {"info": {"features": features}} if features is not None else None
    return made if told is None else made.replace_schema_metadata({"huggingface": json.dumps(told)})


def test_rows_are_rows(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=2)
    items = read("parquet", tmp_path / "a.parquet")
    assert rows(items) == ROWS
    assert [item.where for item in items] == ["row 1", "row 2", "row 3"]


@pytest.mark.parametrize("kind", ["Sequence", "List"])
def test_numbers_of_classes_become_their_names(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": CLASS,
        "ner_tags": {"feature": CLASS, "_type": kind},
    }
    pq.write_table(table(features), path)
    assert settled("parquet", path).named_classes == ("label", "ner_tags")
    found = rows(read("parquet", path))
    assert [row["label"] for row in found] == ["neg", "pos", None]
    assert [row["ner_tags"] for row in found] == [["neg", "pos"], [], ["pos"]]
    assert rows(read("parquet", path, named_classes=())) == ROWS
    assert [row["ner_tags"] for row in rows(read("parquet", path, named_classes=["label"]))] == [[0, 1], [], [1]]
    with pytest.raises(UserError, match=r"names of the classes of text; got those of label, ner_tags"):
        read("parquet", path, named_classes=["text"])


def test_metadata_of_another_shape_is_no_matter(tmp_path: Path) -> None:
    for told in (
        "[",
        "[]",
        '{"info": {"features": [1]}}',
        '{"info": {"features": {"label": {"_type": "ClassLabel"}}}}',
    ):
        path = tmp_path / "a.parquet"
        pq.write_table(table().replace_schema_metadata({"huggingface": told}), path)
        assert rows(read("parquet", path)) == ROWS


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    path = written(tmp_path, "b.parquet", (tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(UserError, match="must be a whole Parquet file"):
        read("parquet", path)
