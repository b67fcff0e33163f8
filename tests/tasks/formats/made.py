"""Files for the tests of formats, and what comes out of them."""

from pathlib import Path
from typing import Any

from foundling.core.registry import load_part
from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import FOLDER, Fault, Row


def written(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def settled(kind: str, path: Path, **settings: Any) -> Any:
    return load_part(FOLDER, kind).Config(kind=kind, **settings).settle(Stream(path), path.name)


def read(kind: str, path: Path, **settings: Any) -> list[Row | Fault]:
    return list(settled(kind, path, **settings).build().read(Stream(path)))


def rows(items: list[Row | Fault]) -> list[dict[str, Any]]:
    return [item.data for item in items if isinstance(item, Row)]


def faults(items: list[Row | Fault]) -> list[tuple[str, str]]:
    return [(item.where, item.reason) for item in items if isinstance(item, Fault)]
