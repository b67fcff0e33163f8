"""What every reader of the corpus keeps to; a new reader file is tried here unasked."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from foundling.core.config import PartConfig
from foundling.core.registry import load_part, part_names
from foundling.corpus.readers.base import PROBLEMS, Problem, Record
from foundling.corpus.streams import COMPRESSIONS, Stream

READERS = part_names("corpus.readers")
RNG = random.Random(0)
BAD = {
    "empty": b"",
    "blank": b"\n \n",
    "random": RNG.randbytes(5000),
    "zeros": bytes(5000),
    "ones": b"\xff" * 5000,
    "open brackets": b"[{" * 5000,
    "deep": b"[" * 100_000,
    "open quotes": b'"' * 4999,
    "open tags": b"<p><div" * 2000,
    "half a list": b'[{"text": "a"}, {"text": "b',
    "one character": b"x",
    "a mark alone": b"\xff\xfe",
    "surrogates": json.dumps({"text": "\ud800", "\udc00": 1}).encode(),
    "magic alone": b"PAR1",
    "warc alone": b"WARC/1.0\r\nContent-Length: 99999999999999\r\nWARC-Type: response\r\n\r\nHTTP/1.1 200\r\n\r\n",
    "archive cut": gzip.compress(RNG.randbytes(5000))[:2000],
}


def config(kind: str) -> Any:
    return load_part("corpus.readers", kind).Config(kind=kind)


def test_suffixes_belong_to_one_reader() -> None:
    suffixes = [suffix for kind in READERS for suffix in load_part("corpus.readers", kind).SUFFIXES]
    assert len(set(suffixes)) == len(suffixes)
    for suffix in suffixes:
        assert suffix == suffix.lower()
        assert suffix.startswith(".")
        assert suffix not in COMPRESSIONS


@pytest.mark.parametrize("kind", READERS)
def test_the_file_holds_a_part(kind: str) -> None:
    part = load_part("corpus.readers", kind)
    assert issubclass(part.Config, PartConfig)
    assert part.__doc__
    assert part.Config.__doc__
    for name, field in part.Config.model_fields.items():
        assert field.description, f"{kind}.{name} has no docstring"


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_and_never_raised(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(BAD[name])
    settled = config(kind).settle(Stream(path), "a")
    first, second = (list(settled.build().read(Stream(path))) for _ in range(2))
    assert first == second
    suffixes = []
    for item in first:
        if isinstance(item, Problem):
            assert item.kind in PROBLEMS
            assert item.detail
            assert item.count > 0
        else:
            assert isinstance(item, Record)
            item.text.encode()
            json.dumps(item.meta)
            suffixes.append(item.suffix)
    assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize("kind", READERS)
def test_settled_once_is_settled(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text('{"text": "a"}\n')
    settled = config(kind).settle(Stream(path), "a")
    assert settled.settle(Stream(path), "a") == settled
    assert type(settled).model_validate(settled.model_dump()) == settled


@pytest.mark.parametrize("kind", READERS)
def test_a_file_that_cannot_be_opened_is_an_oserror(kind: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        list(config(kind).build().read(Stream(tmp_path / "nothing")))
