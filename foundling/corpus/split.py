"""Train or valid: decided by a document's text alone, so equal texts always stand on the same side."""

from hashlib import sha256
from itertools import compress
from pathlib import Path

import pyarrow as pa

from foundling.corpus.document import Size
from foundling.corpus.shards import DOCUMENTS, ShardWriter, read_shards
from foundling.corpus.word_counts import count_words

SPLITS = ("train", "valid")


class Splitter:
    """Assigns splits, and knows afterwards which text has to move should one side be empty."""

    def __init__(self, valid_fraction: float, seed: int) -> None:
        self._fraction, self._seed = valid_fraction, seed
        self._lowest: tuple[bytes, bytes] | None = None  # (split hash, content hash)
        self._highest: tuple[bytes, bytes] | None = None
        self.num_documents = dict.fromkeys(SPLITS, 0)

    def split_of(self, content_hash: bytes) -> str:
        """The side of a text, from the sha256 of its UTF-8 bytes."""
        digest = sha256(f"{self._seed}:{content_hash.hex()}".encode()).digest()
        pair = (digest, content_hash)
        self._lowest = min(self._lowest or pair, pair)
        self._highest = max(self._highest or pair, pair)
        split = "valid" if int.from_bytes(digest[:8]) < self._fraction * 2**64 else "train"
        self.num_documents[split] += 1
        return split

    def to_move(self) -> tuple[bytes, str, str] | None:
        """(content hash, from, to) that gives an empty side its one text; None where both sides are well.

        A valid side is wanted where the fraction is above 0. One text alone, however often it stands, stays as it is.
        """
        if self._lowest is None or self._highest is None or self._lowest == self._highest:
            return None
        if self._fraction > 0 and not self.num_documents["valid"]:
            return self._lowest[1], "train", "valid"
        if not self.num_documents["train"]:
            return self._highest[1], "valid", "train"
        return None


def move(documents: Path, content_hash: bytes, old: str, new: str) -> list[Size]:
    """Moves every document with this text from one split's shards to the other's; gives the size of each.

    Streams the old split once. The new split has no shards before.
    """
    renamed = documents / f"old-{old}"
    renamed.mkdir()
    for path in sorted(documents.glob(f"{old}-*.parquet")):
        path.rename(renamed / path.name)
    sizes: list[Size] = []
    with ShardWriter(documents, old, DOCUMENTS) as staying, ShardWriter(documents, new, DOCUMENTS) as moving:
        for batch in read_shards(renamed, old, 1024):
            data = [text.encode() for text in batch["text"].to_pylist()]
            goes = [sha256(text).digest() == content_hash for text in data]
            moved_data = list(compress(data, goes))
            num_words = count_words([text.decode() for text in moved_data])
            sizes += [Size(len(text), count) for text, count in zip(moved_data, num_words, strict=True)]
            staying.write(batch.filter(pa.array([not yes for yes in goes])))
            moved = batch.filter(pa.array(goes))
            at = moved.schema.get_field_index("split")
            moving.write(moved.set_column(at, "split", pa.array([new] * moved.num_rows, pa.string())))
    for path in renamed.iterdir():
        path.unlink()
    renamed.rmdir()
    return sizes
