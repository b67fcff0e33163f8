"""What one step did to the documents that it saw: sums and a few real examples, mergeable in any order.

Workers note what happened in a batch, the one who takes the batches in order adds it up. An example is chosen by a
hash of its document's id, so the choice is the same for any number of workers, and spread over the whole corpus.
"""

from bisect import insort
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from foundling.corpus.document import Drop, Size
from foundling.corpus.redaction import Redactor

SAMPLE_CHARACTERS = 240
"""How much of a dropped document is kept for people to look at."""
EXCERPT_CHARACTERS = 240
"""How much of a changed document is shown, before and after."""
_BEFORE_CHARACTERS = 60  # of an excerpt, that stand before the first difference
_MAX_CHANGES = 10
_MAX_SAMPLES = 5


class StepNotes:
    """Figures of one step. redactor: says what may be shown of changes."""

    __slots__ = (
        "changes",
        "dropped",
        "found",
        "num_bytes",
        "num_changed",
        "num_documents",
        "num_words",
        "redactor",
        "samples",
    )

    def __init__(self, redactor: Redactor | None = None) -> None:
        self.redactor = redactor or Redactor()
        self.num_documents = 0  # that the step kept
        self.num_bytes = 0
        self.num_words = 0
        self.num_changed = 0
        self.found: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.changes: list[list[Any]] = []  # [rank, id, before, after]
        self.samples: dict[str, list[list[Any]]] = {}  # reason -> [rank, id, detail, beginning]

    def kept(self, size: Size) -> None:
        self.num_documents += 1
        self.num_bytes += size.num_bytes
        self.num_words += size.num_words

    def changed(self, id: str, before: str, after: str) -> None:
        self.num_changed += 1
        rank = crc32(id.encode())
        if len(self.changes) < _MAX_CHANGES or rank <= self.changes[-1][0]:
            _add(self.changes, [rank, id, *excerpts(before, after, self.redactor)], _MAX_CHANGES)

    def find(self, found: Mapping[str, int]) -> None:
        for name, count in found.items():
            self.found[name] = self.found.get(name, 0) + count

    def drop(self, drop: Drop, id: str, sample: str) -> None:
        """drop, sample: as they may be shown."""
        self.dropped[drop.reason] = self.dropped.get(drop.reason, 0) + 1
        rank = crc32(id.encode())
        samples = self.samples.setdefault(drop.reason, [])
        if len(samples) < _MAX_SAMPLES or rank <= samples[-1][0]:
            _add(samples, [rank, id, drop.detail or "", sample], _MAX_SAMPLES)

    def plain(self) -> list[Any]:
        """Plain data for JSON, as `merge` takes it."""
        figures = [self.num_documents, self.num_bytes, self.num_words, self.num_changed]
        return [*figures, self.found, self.dropped, self.changes, self.samples]

    def merge(self, plain: list[Any]) -> None:
        """Adds what another one noted."""
        num_documents, num_bytes, num_words, num_changed, found, dropped, changes, samples = plain
        self.num_documents += num_documents
        self.num_bytes += num_bytes
        self.num_words += num_words
        self.num_changed += num_changed
        self.find(found)
        for reason, count in dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        for row in changes:
            _add(self.changes, row, _MAX_CHANGES)
        for reason, rows in samples.items():
            kept = self.samples.setdefault(reason, [])
            for row in rows:
                _add(kept, row, _MAX_SAMPLES)

    def figures(self) -> dict[str, Any]:
        """Everything for the manifest, in an order that does not depend on the order of the merges."""
        return {
            "num_documents": self.num_documents,
            "num_bytes": self.num_bytes,
            "num_words": self.num_words,
            "dropped": dict(sorted(self.dropped.items())),
            "num_changed": self.num_changed,
            "found": dict(sorted(self.found.items())),
            "changes": [{"id": id, "before": before, "after": after} for _, id, before, after in self.changes],
            "examples": {
                reason: [{"id": id, "detail": detail or None, "sample": sample} for _, id, detail, sample in rows]
                for reason, rows in sorted(self.samples.items())
            },
        }


def excerpts(before: str, after: str, redactor: Redactor | None = None) -> tuple[str, str]:
    """The surroundings of the first difference in both texts; `…` stands for what is left out in front or behind."""
    redactor = redactor or Redactor()
    first, last = 0, min(len(before), len(after))
    while first < last:  # the longest common beginning, by halves: slices compare faster than characters
        middle = (first + last + 1) // 2
        if before[first:middle] == after[first:middle]:
            first = middle
        else:
            last = middle - 1
    start = max(0, first - _BEFORE_CHARACTERS)
    end = start + EXCERPT_CHARACTERS
    front = "…" if start else ""
    cut = [front + redactor.shown(text, start, end) + ("…" if end < len(text) else "") for text in (before, after)]
    return cut[0], cut[1]


def _add(rows: list[list[Any]], row: list[Any], limit: int) -> None:
    insort(rows, row)
    del rows[limit:]
