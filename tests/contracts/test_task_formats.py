"""What every format of task files keeps to; a new format file is tried here unasked."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.core.registry import load_part, part_names
from foundling.corpus.streams import COMPRESSIONS, Stream
from foundling.tasks.files import read_records
from foundling.tasks.formats.base import FOLDER, NO, SURE, Fault, Row
from tests.contracts.test_corpus_readers import BAD

FORMATS = part_names(FOLDER)


def config(kind: str) -> Any:
    return load_part(FOLDER, kind).Config(kind=kind)


def test_the_shipped_ones_are_found() -> None:
    assert {"jsonl", "json", "csv", "parquet", "conll", "squad"} <= set(FORMATS)


def test_suffixes_belong_to_one_format() -> None:
    suffixes = Counter(suffix for kind in FORMATS for suffix in load_part(FOLDER, kind).SUFFIXES)
    assert set(suffixes.values()) == {1}
    for suffix in suffixes:
        assert suffix == suffix.lower()
        assert suffix.startswith(".")
        assert suffix not in COMPRESSIONS


@pytest.mark.parametrize("kind", FORMATS)
def test_the_file_holds_a_part(kind: str) -> None:
    part = load_part(FOLDER, kind)
    assert issubclass(part.Config, PartConfig)
    assert part.__doc__
    assert part.Config.__doc__
    for name, field in part.Config.model_fields.items():
        assert field.description, f"{kind}.{name} has no docstring"
        assert field.default is not ..., (
            f"{kind}.{name} has no default: a format must read files that say nothing of it"
        )


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_and_never_another_error(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(BAD[name])
    head = Stream(path).head
    assert NO <= load_part(FOLDER, kind).certainty(head, head.decode(errors="ignore")) <= SURE
    settled = config(kind).settle(Stream(path), "a")
    read = lambda: list(settled.build().read(Stream(path)))
    try:
        found = read()
    except UserError:  # the file as a whole is not of this format
        return
    assert read() == found
    for item in found:
        if isinstance(item, Fault):
            assert item.reason
        else:
            assert isinstance(item, Row)
            json.dumps(item.data, ensure_ascii=False).encode()
    assert len({item.where for item in found if isinstance(item, Row)}) == sum(isinstance(i, Row) for i in found)


@pytest.mark.parametrize("name", BAD)
def test_bad_files_of_no_format_are_refused_or_told(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(BAD[name])
    try:
        found = read_records(path)
    except UserError:
        return
    assert all(reason for _, reason in found.faults)


@pytest.mark.parametrize("kind", FORMATS)
def test_settled_once_is_settled(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text('{"text": "a"}\n')
    settled = config(kind).settle(Stream(path), "a")
    assert settled.settle(Stream(path), "a") == settled
    assert type(settled).model_validate(settled.model_dump()) == settled


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_cannot_be_opened_is_told(kind: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        list(config(kind).build().read(Stream(tmp_path / "nothing")))
