"""The token store: a corpus as ids in memory-mapped shards, made once, read by every run.

A store folder holds, for each split, shards `train-00000.bin` ... (little-endian uint16, or uint32 for a vocabulary of
more than 65,536), `train-documents.npy` (int64 `[4, num_documents]`: start, length in tokens, bytes of the text,
source), `index.json` (sources, shards, sha256 of every 4 MiB block) and the manifest. Documents stand by source (names
sorted), then in the order of the corpus, each followed by the end token.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from foundling.core.errors import UserError
from foundling.core.files import (
    MANIFEST,
    artefact_key,
    is_current,
    read_json,
    read_manifest,
    sha256_of,
    whole_folder,
    write_json,
    write_manifest,
)
from foundling.core.log import logger
from foundling.data._shards import BLOCK_BYTES, ShardWriter, Spools, blocks_of
from foundling.data.tokenize import tokenize
from foundling.tokenizers.base import Tokenizer

KIND = "token store"
SPLITS = ("train", "valid")
Tag = Literal["source", "domain"]
"""What documents stand by in a store. Its index and table say `source` for either."""
SHARD_TOKENS = 64 << 20
"""Tokens of a shard: 128 MiB of uint16."""

_INDEX = "index.json"
_START, _LENGTH, _BYTES, _SOURCE = range(4)


class DocumentLike(Protocol):
    """A document of a corpus, as far as the store reads it."""

    @property
    def text(self) -> str: ...

    @property
    def source(self) -> str: ...


class CorpusLike(Protocol):
    """What a store is made from: `foundling.corpus.folder.Corpus`, or anything with a key and documents by split."""

    @property
    def key(self) -> str: ...

    def documents(self, split: str, /) -> Iterator[Any]: ...


def build_store(
    corpus: CorpusLike,
    tokenizer: Tokenizer,
    out: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int, int], None] | None = None,
    end_id: int | Literal["auto"] | None = "auto",
    shard_tokens: int = SHARD_TOKENS,
    tag: Tag = "source",
) -> "TokenStore":
    """Tokenizes a corpus into the folder `out`; skipped where that folder already stands for the same inputs.

    workers: processes, None for one a processor; the result does not depend on it. progress: called with (documents,
    bytes, tokens) done so far. end_id: the token after each document; "auto": the tokenizer's eos, else sep, else
    none; None: none. tag: what documents stand by, their source or their domain. A store made from other inputs is
    replaced, since it can be made again; anything else at `out` is a UserError. Memory is bounded: neither the corpus
    nor its ids are ever held whole.
    """
    if end_id == "auto":
        end_id = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
    if end_id is not None and not 0 <= end_id < tokenizer.vocab_size:
        raise UserError(f"end_id must be an id of the tokenizer, below {tokenizer.vocab_size}", got=end_id)
    if shard_tokens < 1:
        raise UserError("shard_tokens must be 1 or more", got=shard_tokens)
    settings: dict[str, Any] = {"end_id": end_id, "dtype": tokenizer.dtype.name, "shard_tokens": shard_tokens}
    if tag != "source":
        settings["tag"] = tag
    inputs = {"corpus": corpus.key, "tokenizer": tokenizer.sha256}
    if is_current(out, KIND, artefact_key(KIND, settings, inputs)):
        logger.info("token store: %s is up to date", out)
        return TokenStore.open(out, tokenizer.sha256)
    if out.exists() and not _replaceable(out):
        raise UserError("a token store must be written to a new folder", got=f"{out}, which holds something else")
    with whole_folder(out) as folder:
        index, done = {}, _Progress(progress)
        for split in SPLITS:
            documents = ((getattr(document, tag), document.text) for document in corpus.documents(split))
            index[split] = _write_split(split, documents, tokenizer, folder, done, end_id, shard_tokens, workers)
        if not done.num_documents:
            raise UserError("a corpus must hold documents to tokenize", got="none in any split")
        write_json(folder / _INDEX, index)
        counts = {
            split: {k: entry[k] for k in ("tokens", "documents", "bytes", "by_source")}
            for split, entry in index.items()
        }
        write_manifest(folder, KIND, settings=settings, inputs=inputs, counts=counts)
    return TokenStore.open(out, tokenizer.sha256)


class _Progress:
    """Adds up what is done and tells it."""

    def __init__(self, tell: Callable[[int, int, int], None] | None) -> None:
        self._tell = tell
        self.num_documents = self._num_bytes = self._num_tokens = 0

    def add(self, num_documents: int, num_bytes: int, num_tokens: int) -> None:
        self.num_documents += num_documents
        self._num_bytes += num_bytes
        self._num_tokens += num_tokens
        if self._tell is not None:
            self._tell(self.num_documents, self._num_bytes, self._num_tokens)


def _replaceable(out: Path) -> bool:
    if not out.is_dir():
        return False
    if not (out / MANIFEST).exists():
        return not any(out.iterdir())
    manifest = read_json(out / MANIFEST)
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def _write_split(
    split: str,
    documents: Iterator[tuple[str, str]],
    tokenizer: Tokenizer,
    folder: Path,
    done: _Progress,
    end_id: int | None,
    shard_tokens: int,
    workers: int | None,
) -> dict[str, Any]:
    """Tokenizes one split, given as (tag, text), into `folder` and returns its part of the index."""
    spool_folder = folder / f"{split}-spool"
    spool_folder.mkdir()
    spools = Spools(spool_folder)
    for batch in tokenize(documents, tokenizer, workers=workers):
        ids, lengths = _with_ends(batch.ids, batch.lengths_tokens, end_id)
        for source, first, last in _runs(batch.tags):
            start, end = int(lengths[:first].sum()), int(lengths[:last].sum())
            spools.add(source, ids[start:end], lengths[first:last], batch.lengths_bytes[first:last])
        done.add(len(lengths), int(batch.lengths_bytes.sum()), len(ids))
    spools.flush()
    entry = _lay_out(split, spools, folder, tokenizer.dtype, shard_tokens)
    spool_folder.rmdir()
    return entry


def _with_ends(ids: np.ndarray, lengths: np.ndarray, end_id: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The ids with the end token after each document, and the lengths that count it."""
    if end_id is None:
        return ids, lengths
    return np.insert(ids, np.cumsum(lengths), end_id), lengths + 1


def _runs(tags: list[str]) -> Iterator[tuple[str, int, int]]:
    """(tag, first, last + 1) for each run of equal tags."""
    first = 0
    for i in range(1, len(tags) + 1):
        if i == len(tags) or tags[i] != tags[first]:
            yield tags[first], first, i
            first = i


def _lay_out(split: str, spools: Spools, folder: Path, dtype: np.dtype, shard_tokens: int) -> dict[str, Any]:
    table = np.lib.format.open_memmap(
        folder / f"{split}-documents.npy", mode="w+", dtype=np.int64, shape=(4, spools.num_documents)
    )
    writer = ShardWriter(folder, split, dtype, shard_tokens)
    by_source: dict[str, dict[str, int]] = {}
    num_documents = num_tokens = num_bytes = 0
    for index, source in enumerate(spools.sources):
        lengths = spools.documents(source)
        with spools.open_ids(source) as file:
            writer.write(file, lengths[:, 0])
        columns = slice(num_documents, num_documents + len(lengths))
        ends = num_tokens + np.cumsum(lengths[:, 0])
        table[_START, columns] = ends - lengths[:, 0]
        table[_LENGTH, columns], table[_BYTES, columns] = lengths[:, 0], lengths[:, 1]
        table[_SOURCE, columns] = index
        source_bytes = int(lengths[:, 1].sum())
        by_source[source] = {
            "tokens": int(ends[-1]) - num_tokens,
            "documents": len(lengths),
            "bytes": source_bytes,
        }
        num_documents, num_tokens, num_bytes = columns.stop, int(ends[-1]), num_bytes + source_bytes
        del lengths
        spools.remove(source)
    writer.close()
    table.flush()
    return {
        "tokens": num_tokens,
        "documents": num_documents,
        "bytes": num_bytes,
        "by_source": by_source,
        "sources": list(by_source),
        "shards": writer.shards,
    }


class TokenStream:
    """One split of a store: the concatenation of its shards, `num_tokens` long."""

    def __init__(self, folder: Path, split: str, index: dict[str, Any], dtype: np.dtype) -> None:
        self._folder, self._index, self.split, self.dtype = folder, index, split, dtype
        self.num_tokens: int = index["tokens"]
        """Tokens, end tokens included."""
        self.num_documents: int = index["documents"]
        self.num_bytes: int = index["bytes"]
        """UTF-8 bytes of the documents' text."""
        self.sources: list[str] = index["sources"]
        self._ends = np.cumsum([shard["tokens"] for shard in index["shards"]], dtype=np.int64)
        self._shards: dict[int, np.ndarray] = {}

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens [start, start + length) as int64 `[length]`; the range must lie inside the split."""
        return self.view(start, length).astype(np.int64)

    def view(self, start: int, length: int) -> np.ndarray:
        """The same in the stored type; not copied where the range lies in one shard (read-only then)."""
        assert 0 <= start <= start + length <= self.num_tokens, (start, length, self.num_tokens)
        shard = int(np.searchsorted(self._ends, start, side="right"))
        parts = []
        while length:
            begin = start - (int(self._ends[shard - 1]) if shard else 0)
            part = self._shard(shard)[begin : begin + length]
            parts.append(part)
            start, length, shard = start + len(part), length - len(part), shard + 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._shards:
            name = self._index["shards"][number]["name"]
            mapped = np.memmap(self._folder / name, self.dtype.newbyteorder("<"), "r")
            self._shards[number] = np.asarray(mapped)  # each slice of the subclass costs 10 us
        return self._shards[number]

    @cached_property
    def _table(self) -> np.ndarray:
        return np.load(self._folder / f"{self.split}-documents.npy", mmap_mode="r" if self.num_documents else None)

    @property
    def document_starts(self) -> np.ndarray:
        """`[num_documents]` int64, mapped: where each document starts."""
        return self._table[_START]

    @property
    def document_lengths(self) -> np.ndarray:
        """`[num_documents]` int64, mapped: tokens of each document, its end token included."""
        return self._table[_LENGTH]

    @property
    def document_bytes(self) -> np.ndarray:
        """`[num_documents]` int64, mapped: UTF-8 bytes of each document's text."""
        return self._table[_BYTES]

    @property
    def document_source(self) -> np.ndarray:
        """`[num_documents]` int64, mapped: the index in `sources` of each document."""
        return self._table[_SOURCE]

    def part(self, name: str) -> "StreamPart":
        """The tokens of one source (or domain) as a stream of its own."""
        start, end = self.source_range(name)
        return StreamPart(self, start, end)

    def source_range(self, name: str) -> tuple[int, int]:
        """(start, end) of a source's tokens."""
        if name not in self.sources:
            raise UserError(f"the source must be one of {', '.join(self.sources)}", got=repr(name))
        start = 0
        for source in self.sources[: self.sources.index(name)]:
            start += self._index["by_source"][source]["tokens"]
        return start, start + self._index["by_source"][name]["tokens"]


class StreamPart(TokenStream):
    """The documents of a stream that lie in tokens [start, end), as a stream whose first token is number 0."""

    def __init__(self, whole: TokenStream, start: int, end: int) -> None:
        self._whole, self._start = whole, start
        self.split, self.dtype = whole.split, whole.dtype
        first, last = np.searchsorted(whole.document_starts, (start, end)).tolist()
        self._columns = slice(first, last)
        self.num_tokens, self.num_documents = end - start, last - first
        self.num_bytes = int(whole.document_bytes[first:last].sum())
        self.sources = whole.sources

    def view(self, start: int, length: int) -> np.ndarray:
        assert 0 <= start <= start + length <= self.num_tokens, (start, length, self.num_tokens)
        return self._whole.view(self._start + start, length)

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.array(self._whole._table[:, self._columns])
        table[_START] -= self._start
        return table


@dataclass(frozen=True)
class TokenStore:
    """A token store folder. tokenizer_sha256: of the tokenizer whose ids it holds. end_id: the token after each
    document, None where there is none."""

    folder: Path
    key: str
    tokenizer_sha256: str
    end_id: int | None
    dtype: np.dtype
    _streams: dict[str, TokenStream]

    @classmethod
    def open(
        cls, folder: Path | str, tokenizer_sha256: str | None = None, verify: Literal["size", "full"] = "size"
    ) -> "TokenStore":
        """Opens a store; UserError where it is not whole, or was made with another tokenizer.

        tokenizer_sha256: of the tokenizer that will read the ids, None where any will do. verify: "size" looks at
        the files' sizes, "full" reads every byte and names the file and range that a fault lies in.
        """
        folder = Path(folder)
        manifest = read_manifest(folder, KIND)
        made_with = manifest["inputs"]["tokenizer"]
        if tokenizer_sha256 is not None and tokenizer_sha256 != made_with:
            raise UserError(
                f"the token store {folder} must have been made with the run's tokenizer ({tokenizer_sha256[:12]})",
                got=f"one made with {made_with[:12]}",
                do="tokenize the corpus again, or use the store's tokenizer",
            )
        _verify_sizes(folder, manifest)
        index = read_json(folder / _INDEX)
        if verify == "full":
            _verify_bytes(folder, manifest, index)
        dtype = np.dtype(manifest["settings"]["dtype"])
        streams = {split: TokenStream(folder, split, entry, dtype) for split, entry in index.items()}
        return cls(folder, manifest["key"], made_with, manifest["settings"]["end_id"], dtype, streams)

    def split(self, name: str) -> TokenStream:
        """The tokens of a split, `train` or `valid`; an absent split is empty, an unknown one a UserError."""
        if name not in self._streams:
            raise UserError(f"the split must be one of {', '.join(self._streams)}", got=repr(name))
        return self._streams[name]


def _verify_sizes(folder: Path, manifest: dict[str, Any]) -> None:
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.exists():
            raise UserError(f"{path} is missing", do=_AGAIN)
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise UserError(f"{path} must have {entry['bytes']} bytes", got=size, do=_AGAIN)


_AGAIN = "delete the folder and tokenize the corpus again"


def _verify_bytes(folder: Path, manifest: dict[str, Any], index: dict[str, Any]) -> None:
    shards = {shard["name"]: shard["blocks_sha256"] for entry in index.values() for shard in entry["shards"]}
    for name in sorted(set(manifest["files"]) - set(shards)):
        if sha256_of(folder / name) != manifest["files"][name]["sha256"]:
            raise UserError(f"{folder / name} is damaged: its sha256 is not the manifest's", do=_AGAIN)
    for name, blocks in shards.items():
        for number, (found, wanted) in enumerate(zip(blocks_of(folder / name), blocks, strict=True)):
            if found != wanted:
                start = number * BLOCK_BYTES
                end = min(start + BLOCK_BYTES, manifest["files"][name]["bytes"])
                raise UserError(f"{folder / name} is damaged between bytes {start} and {end}", do=_AGAIN)
