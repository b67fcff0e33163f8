"""A corpus folder as it is read: documents in a fixed order, a bounded piece at a time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundling.core.errors import UserError
from foundling.core.files import read_manifest
from foundling.corpus.document import Document
from foundling.corpus.shards import read_shards
from foundling.corpus.split import SPLITS

__all__ = ["KIND", "Corpus", "Document", "open_corpus"]

KIND = "corpus"


@dataclass(frozen=True)
class Corpus:
    """A whole corpus folder. `key` is the identity of its content; `manifest` says what made it."""

    dir: Path
    key: str
    manifest: dict[str, Any]

    def documents(self, split: str | None = None, batch_size: int = 256) -> Iterator[Document]:
        """All documents of a split (`train`, `valid`; None: train, then valid), always in the same order.

        batch_size: documents read at a time; a row group of about 8 MiB bounds the memory in any case.
        """
        for part in _splits(split):
            for batch in read_shards(self.dir / "documents", part, batch_size):
                for row in batch.to_pylist():
                    row["meta"] = json.loads(row["meta"])
                    yield Document(**row)

    def num_documents(self, split: str | None = None) -> int:
        return sum(self.manifest["counts"]["splits"][part]["num_documents"] for part in _splits(split))

    def num_bytes(self, split: str | None = None) -> int:
        """UTF-8 bytes of the texts."""
        return sum(self.manifest["counts"]["splits"][part]["num_bytes"] for part in _splits(split))


def _splits(split: str | None) -> tuple[str, ...]:
    if split is None:
        return SPLITS
    if split not in SPLITS:
        raise UserError(f"a split must be one of {', '.join(SPLITS)}", got=repr(split))
    return (split,)


def open_corpus(dir: Path) -> Corpus:
    """The corpus in a folder. Raises UserError where it is none, or a file is missing or has another size."""
    manifest = read_manifest(Path(dir), KIND)
    for name, entry in manifest["files"].items():
        path = Path(dir) / name
        size = path.stat().st_size if path.is_file() else None
        if size != entry["bytes"]:
            got = "no such file" if size is None else f"{size} bytes"
            raise UserError(f"{path} must have {entry['bytes']} bytes", got=got, do="build the corpus again")
    return Corpus(Path(dir), manifest["key"], manifest)
