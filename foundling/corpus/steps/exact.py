"""Exact duplicates: of documents with equal text, the first in the corpus's order stays.

Equality is that of the first 16 bytes of sha256: among 10^10 documents two differing ones meet with chance 2^-63.
"""

from hashlib import sha256

import numpy as np

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop

REASONS = {"duplicate": "the same text, character by character, stands earlier in the corpus"}
_HASH_BYTES = 16
# A Python set takes about 90 bytes a hash; a sorted array takes 16. The set holds the newest only.
_MAX_RECENT = 1 << 19


class Config(PartConfig):
    """Nothing to set: equal is equal."""

    def build(self) -> "Exact":
        return Exact()


class Exact:
    """Holds 16 bytes a document: sorted runs whose sizes at least halve, and a set of the newest hashes."""

    def __init__(self, max_recent: int = _MAX_RECENT) -> None:
        self._max_recent = max_recent
        self._recent: set[bytes] = set()
        self._runs: list[np.ndarray] = []

    def signature(self, document: Document) -> bytes:
        return sha256(document.text.encode()).digest()[:_HASH_BYTES]

    def admit(self, signature: bytes) -> Drop | None:
        if signature in self._recent or any(_holds(run, signature) for run in self._runs):
            return Drop("duplicate")
        self._recent.add(signature)
        if len(self._recent) >= self._max_recent:
            self._settle()
        return None

    def _settle(self) -> None:
        run = np.sort(np.array(list(self._recent), dtype=f"S{_HASH_BYTES}"))
        self._recent.clear()
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        self._runs.append(run)


def _holds(run: np.ndarray, signature: bytes) -> bool:
    wanted = np.array(signature, dtype=run.dtype)  # numpy ignores trailing zero bytes on both sides alike
    place = int(np.searchsorted(run, wanted))
    return place < len(run) and bool(run[place] == wanted)
