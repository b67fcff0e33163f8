"""Files for the tests of readers, and what comes out of them."""

from pathlib import Path
from typing import Any

from foundling.core.registry import load_part
from foundling.corpus.readers.base import Problem, Record
from foundling.corpus.streams import Stream


def written(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def settled(kind: str, path: Path, **settings: Any) -> Any:
    return load_part("corpus.readers", kind).Config(kind=kind, **settings).settle(Stream(path), path.name)


def read(kind: str, path: Path, **settings: Any) -> list[Record | Problem]:
    stream = Stream(path)
    return list(settled(kind, path, **settings).build().read(stream))


def texts(items: list[Record | Problem]) -> list[str]:
    return [item.text for item in items if isinstance(item, Record)]


def problems(items: list[Record | Problem]) -> list[tuple[str, str]]:
    return [(item.kind, item.detail) for item in items if isinstance(item, Problem)]
