"""Parquet: a row is a row, its columns are its fields, but for columns of bytes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import pyarrow.parquet as pq

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.corpus.readers._fields import plain
from foundling.corpus.readers.base import Problem
from foundling.corpus.readers.parquet import open_parquet, parquet_rows
from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import NO, SURE, Fault, Row

SUFFIXES = (".parquet", ".pq")


class Config(PartConfig):
    """How the rows of one file are read."""

    named_classes: tuple[str, ...] | None = None
    """Columns whose numbers are classes and become their names, which the file tells (as those of Hugging Face's
    datasets do); -1 stands for none. None: all of which it tells them; []: none."""

    def settle(self, stream: Stream, name: str) -> Self:
        """The config with all that depends on the file fixed; `name` is for messages."""
        if self.named_classes is not None:
            return self
        with stream.seekable() as source:
            file = open_parquet(source)
            known = () if isinstance(file, Problem) else tuple(_class_names(file))
        return self.model_copy(update={"named_classes": known})

    def build(self) -> "Parquet":
        return Parquet(self.named_classes or ())


class Parquet:
    def __init__(self, named_classes: Sequence[str]) -> None:
        self.named_classes = named_classes

    def read(self, stream: Stream) -> Iterator[Row | Fault]:
        with stream.seekable() as source:
            file = open_parquet(source)
            if isinstance(file, Problem):
                raise UserError(f"{stream.path.name} must be a whole Parquet file", got=file.detail)
            told = _class_names(file)
            if wrong := [column for column in self.named_classes if column not in told]:
                raise UserError(
                    f"{stream.path.name} must tell the names of the classes of {', '.join(wrong)}",
                    got=f"those of {', '.join(told) or 'none'}",
                    do="correct named_classes",
                )
            for number, row in parquet_rows(file):
                where = f"row {number}"
                if isinstance(row, Problem):
                    yield Fault(where, row.detail)
                    continue
                data = plain(row)
                for column in self.named_classes:
                    data[column] = _named(data.get(column), told[column])
                yield Row(where, data)


def _class_names(file: pq.ParquetFile) -> dict[str, list[str]]:
    """Column -> names of its classes, as Hugging Face's `datasets` writes its features into the file."""
    try:
        features = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        return {column: names for column, kind in features.items() if (names := _names_in(kind)) is not None}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}  # written by something else


def _names_in(kind: Any) -> list[str] | None:
    while isinstance(kind, Mapping) and kind.get("_type") in ("Sequence", "List", "LargeList"):
        kind = kind.get("feature")
    names = kind.get("names") if isinstance(kind, Mapping) and kind.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) else None


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    if type(value) is not int:
        return value
    return names[value] if 0 <= value < len(names) else None if value == -1 else value


def certainty(head: bytes, text: str) -> int:
    return SURE if head.startswith(b"PAR1") else NO
