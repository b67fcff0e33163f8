"""Writing a token store: ids are spooled by source as they come, then laid into shards, source after source."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK_BYTES = 4 << 20
"""Bytes of a shard that share one sha256: a damaged store is named to this range."""

_FLUSH_BYTES = 64 << 20
"""Ids held in memory for all sources together before they go to the spools."""


@dataclass
class _Spool:
    """The documents of one source, in order: ids in one file, [lengths in tokens, in bytes] in another."""

    path: Path
    num_documents: int = 0
    ids: list[bytes] = field(default_factory=list)
    lengths: list[np.ndarray] = field(default_factory=list)

    def flush(self) -> None:
        for suffix, parts in ((".ids", self.ids), (".lengths", [pair.tobytes() for pair in self.lengths])):
            with self.path.with_suffix(suffix).open("ab") as file:
                file.writelines(parts)
        self.ids, self.lengths = [], []


class Spools:
    """Takes documents in any order of sources and keeps each source's apart, on disk, with bounded memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_source: dict[str, _Spool] = {}
        self._held_bytes = 0

    def add(self, source: str, ids: np.ndarray, lengths_tokens: np.ndarray, lengths_bytes: np.ndarray) -> None:
        """Documents of one source: their ids one after the other, and each one's lengths `[num_documents]` int64."""
        if source not in self._by_source:
            self._by_source[source] = _Spool(self._folder / f"{len(self._by_source):06d}")
        spool = self._by_source[source]
        spool.ids.append(ids.tobytes())
        spool.lengths.append(np.stack([lengths_tokens, lengths_bytes], axis=1))
        spool.num_documents += len(lengths_tokens)
        self._held_bytes += len(spool.ids[-1]) + 16 * len(lengths_tokens)
        if self._held_bytes > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        for spool in self._by_source.values():
            if spool.lengths:
                spool.flush()
        self._held_bytes = 0

    @property
    def sources(self) -> list[str]:
        """Names of the sources, sorted: the order of the store, whatever order the corpus had."""
        return sorted(self._by_source)

    @property
    def num_documents(self) -> int:
        return sum(spool.num_documents for spool in self._by_source.values())

    def documents(self, source: str) -> np.ndarray:
        """`[num_documents, 2]` int64, mapped: lengths in tokens and in bytes."""
        spool = self._by_source[source]
        return np.memmap(spool.path.with_suffix(".lengths"), np.int64, "r").reshape(-1, 2)

    def open_ids(self, source: str) -> BinaryIO:
        return self._by_source[source].path.with_suffix(".ids").open("rb")

    def remove(self, source: str) -> None:
        """Frees the disk of a source that has been laid into shards."""
        for suffix in (".ids", ".lengths"):
            self._by_source[source].path.with_suffix(suffix).unlink()


class ShardWriter:
    """Writes ids to `{split}-00000.bin`, ...; a shard ends with a document, unless one alone is larger than a shard."""

    def __init__(self, folder: Path, split: str, dtype: np.dtype, shard_tokens: int) -> None:
        self._folder, self._split, self._dtype, self._shard_tokens = folder, split, dtype, shard_tokens
        self.shards: list[dict[str, object]] = []
        self._file: BinaryIO | None = None
        self._tokens = 0
        self._blocks = _Blocks()

    def write(self, source: BinaryIO, lengths_tokens: np.ndarray) -> None:
        """Moves documents of the given lengths from a file of ids."""
        for num_tokens, ends_shard in self._portions(lengths_tokens):
            self._copy(source, num_tokens)
            if ends_shard:
                self.close()

    def _portions(self, lengths: np.ndarray) -> Iterator[tuple[int, bool]]:
        """(tokens to move, whether the shard is then closed), many documents at once where they fit."""
        limit, done = self._shard_tokens, 0
        while done < len(lengths):
            # Sums over a window, not the whole column: a source may have a billion documents.
            ends = np.cumsum(lengths[done : done + 65_536])
            fit = int(np.searchsorted(ends, limit - self._tokens, side="right"))
            if fit:
                done += fit
                yield int(ends[fit - 1]), False
            elif self._tokens:
                yield 0, True
            else:
                rest = int(ends[0])
                while rest:
                    part = min(rest, limit)
                    rest -= part
                    yield part, True
                done += 1

    def _copy(self, source: BinaryIO, num_tokens: int) -> None:
        if num_tokens and self._file is None:
            self._file = (self._folder / f"{self._split}-{len(self.shards):05d}.bin").open("wb")
        self._tokens += num_tokens
        left = num_tokens * self._dtype.itemsize
        while left:
            data = source.read(min(left, BLOCK_BYTES))
            assert data, "a spool is shorter than its lengths say"
            assert self._file is not None
            self._file.write(data)
            self._blocks.update(data)
            left -= len(data)

    def close(self) -> None:
        """Ends the shard under way."""
        if self._file is not None:
            self._file.close()
            name = f"{self._split}-{len(self.shards):05d}.bin"
            self.shards.append({"name": name, "tokens": self._tokens, "blocks_sha256": self._blocks.end()})
            self._file, self._tokens = None, 0


class _Blocks:
    """sha256 of each `BLOCK_BYTES` of a stream."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._hash = hashlib.sha256()
        self._bytes = 0

    def update(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view):
            part = view[: BLOCK_BYTES - self._bytes]
            self._hash.update(part)
            self._bytes += len(part)
            view = view[len(part) :]
            if self._bytes == BLOCK_BYTES:
                self._close()

    def _close(self) -> None:
        self._done.append(self._hash.hexdigest())
        self._hash, self._bytes = hashlib.sha256(), 0

    def end(self) -> list[str]:
        if self._bytes:
            self._close()
        done, self._done = self._done, []
        return done


def blocks_of(path: Path) -> Iterator[str]:
    """sha256 of each `BLOCK_BYTES` of a file."""
    with path.open("rb") as file:
        while data := file.read(BLOCK_BYTES):
            yield hashlib.sha256(data).hexdigest()
