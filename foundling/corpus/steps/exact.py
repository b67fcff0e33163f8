"""Exact duplicates: of documents with equal text, the first in the corpus's order stays.

`normalised` compares texts without case, white space and punctuation, in compatibility form (NFKC, Unicode Standard
Annex #15), as Wenzek et al. 2020 (CCNet, section 3.1) do for paragraphs; the text itself stays as it is. Unlike there,
digits and symbols (`+`, `<`, `$`) count: rows of a table differ in nothing else.

Equality is that of the first 16 bytes of sha256: among 10^10 documents two differing ones meet with chance 2^-63.
"""

from functools import cache, cached_property
from hashlib import sha256
from typing import Literal
from unicodedata import category, is_normalized, normalize

import numpy as np

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.names import Names

REASONS = {"duplicate": "the same text, as `equality` compares it, stands earlier in the corpus"}
_HASH_BYTES = 16
# A Python dict takes about 130 bytes a hash; sorted arrays take 20. The dict holds the newest only.
_MAX_RECENT = 1 << 19
_IGNORED = ("P", "Z", "C")
"""General categories that `normalised` leaves out: punctuation, separators, control and format characters."""
_IGNORED_ASCII = bytes(code for code in range(128) if category(chr(code))[0] in _IGNORED)


class Config(PartConfig):
    """What equal means."""

    equality: Literal["text", "normalised"] = "text"
    """`text`: character by character. `normalised`: but for case, white space, punctuation and compatibility forms."""

    def build(self) -> "Exact":
        return Exact(self.equality)


class Exact:
    """Holds 20 bytes a document (sorted runs whose sizes at least halve, a dict of the newest), and ids on disk."""

    def __init__(self, equality: Literal["text", "normalised"] = "text", max_recent: int = _MAX_RECENT) -> None:
        self._normalised = equality == "normalised"
        self._max_recent = max_recent
        self._recent: dict[bytes, int] = {}
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    @cached_property
    def _ids(self) -> Names:  # only where documents are admitted, not in each worker
        return Names()

    def signature(self, document: Document) -> bytes:
        """16 bytes of the text's hash, then the id."""
        text = normalised(document.text) if self._normalised else document.text
        digest = sha256(text.encode("utf-8", "surrogatepass")).digest()[:_HASH_BYTES]
        return digest + document.id.encode("utf-8", "surrogatepass")

    def admit(self, signature: bytes) -> Drop | None:
        digest, name = signature[:_HASH_BYTES], signature[_HASH_BYTES:]
        twin = self._recent.get(digest)
        if twin is None:
            twin = next((number for run in self._runs if (number := _find(run, digest)) is not None), None)
        if twin is not None:
            return Drop("duplicate", f"same as {self._ids.read(twin)}")
        self._recent[digest] = self._ids.append(name)
        if len(self._recent) >= self._max_recent:
            self._settle()
        return None

    def _settle(self) -> None:
        hashes = np.array(list(self._recent), dtype=f"S{_HASH_BYTES}")
        run = _sorted(hashes, np.array(list(self._recent.values()), dtype=np.uint32))
        self._recent.clear()
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            last = self._runs.pop()
            run = _sorted(np.concatenate([last[0], run[0]]), np.concatenate([last[1], run[1]]))
        self._runs.append(run)


def normalised(text: str) -> str:
    """What `normalised` compares: no case, white space or punctuation; the text where nothing else is in it."""
    if text.isascii():
        return text.lower().encode().translate(None, _IGNORED_ASCII).decode() or text
    folded = text.casefold()
    if not is_normalized("NFKC", folded):
        folded = normalize("NFKC", folded).casefold()
    units = np.frombuffer(folded.encode("utf-16-le", "surrogatepass"), np.uint16)
    return units[_counts()[units]].tobytes().decode("utf-16-le", "surrogatepass") or text


@cache
def _counts() -> np.ndarray:
    """UTF-16 code unit -> whether it counts for `normalised`. All characters of two units do."""
    units = (chr(code) for code in range(1 << 16))
    return np.array([category(unit)[0] not in _IGNORED or "\ud800" <= unit <= "\udfff" for unit in units])


def _sorted(hashes: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(hashes)
    return hashes[order], numbers[order]


def _find(run: tuple[np.ndarray, np.ndarray], digest: bytes) -> int | None:
    hashes, numbers = run
    wanted = np.array(digest, dtype=hashes.dtype)  # numpy ignores trailing zero bytes on both sides alike
    place = int(np.searchsorted(hashes, wanted))
    return int(numbers[place]) if place < len(hashes) and hashes[place] == wanted else None
