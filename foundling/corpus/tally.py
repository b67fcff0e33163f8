"""What became of every document: the figures of the manifest and the report."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from foundling.core.log import logger
from foundling.corpus.readers.base import PROBLEMS
from foundling.corpus.split import SPLITS

_MAX_TOLD = 5
"""Problems of one kind told one by one; the rest is counted."""
_MAX_EXAMPLES = 20
_MAX_SAMPLES = 5


def _pair(num_documents: int = 0, num_bytes: int = 0) -> dict[str, int]:
    return {"num_documents": num_documents, "num_bytes": num_bytes}


class Tally:
    """Counts. All sizes are UTF-8 bytes of text."""

    def __init__(self, steps: Sequence[str]) -> None:
        self.read = _pair()
        self.steps: list[dict[str, Any]] = [
            {"step": kind, "num_documents_in": 0, "num_bytes_in": 0, **_pair(), "dropped": {}} for kind in steps
        ]
        self.splits = {split: _pair() for split in SPLITS}
        self.tags: dict[str, dict[str, dict[str, int]]] = {"sources": {}, "domains": {}, "languages": {}}
        self.lengths: Counter[int] = Counter()
        self.problems: dict[str, dict[str, Any]] = {}
        self.samples: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def problem(self, name: str, kind: str, detail: str, count: int) -> None:
        entry = self.problems.setdefault(kind, {"meaning": PROBLEMS[kind], "count": 0, "num_events": 0, "examples": []})
        entry["count"] += count
        entry["num_events"] += 1
        if len(entry["examples"]) < _MAX_EXAMPLES:
            entry["examples"].append(f"{name}: {detail}")
        if entry["num_events"] <= _MAX_TOLD:
            logger.warning("%s: %s", name, detail)

    def tell_rest(self) -> None:
        """One line for each kind of problem that was not told in full."""
        for entry in self.problems.values():
            if entry["num_events"] > _MAX_TOLD:
                logger.warning("%d %s, in all", entry["count"], entry["meaning"])

    def document_read(self, num_bytes: int) -> None:
        _add(self.read, num_bytes)

    def passed(self, first_step: int, sizes: Sequence[int]) -> None:
        """A document of `sizes[0]` bytes entered step `first_step`, and left each step k with `sizes[k + 1]`."""
        for step, entered in zip(self.steps[first_step:], sizes, strict=False):
            step["num_documents_in"] += 1
            step["num_bytes_in"] += entered
        for step, left in zip(self.steps[first_step:], sizes[1:], strict=False):
            _add(step, left)

    def dropped(self, step_kind: str, step: int, reason: str, name: str, sample: str) -> None:
        reasons = self.steps[step]["dropped"]
        reasons[reason] = reasons.get(reason, 0) + 1
        samples = self.samples.setdefault((step_kind, reason), [])
        if len(samples) < _MAX_SAMPLES:
            samples.append((name, sample))

    def kept(self, row: dict[str, Any], split: str, num_bytes: int) -> None:
        _add(self.splits[split], num_bytes)
        for tag, value in (("sources", row["source"]), ("domains", row["domain"]), ("languages", row["language"])):
            if value is not None:
                _add(self.tags[tag].setdefault(value, _pair()), num_bytes)
        self.lengths[row["num_characters"].bit_length()] += 1

    def moved(self, old: str, new: str, sizes: Sequence[int]) -> None:
        for num_bytes in sizes:
            _add(self.splits[new], num_bytes)
            _add(self.splits[old], -num_bytes, -1)

    def step_total(self) -> list[str]:
        """`length took 3 (too_short 3)`, for each step that took any."""
        lines = []
        for step in self.steps:
            if step["dropped"]:
                reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(step["dropped"].items()))
                lines.append(f"{step['step']} took {sum(step['dropped'].values())} ({reasons})")
        return lines

    def counts(self) -> dict[str, Any]:
        """Everything, as plain data for the manifest. `lengths`: [fewest characters, number of documents] by octave."""
        for step in self.steps:
            step["dropped"] = dict(sorted(step["dropped"].items()))
        return {
            "num_documents_read": self.read["num_documents"],
            "num_bytes_read": self.read["num_bytes"],
            "num_documents": sum(split["num_documents"] for split in self.splits.values()),
            "num_bytes": sum(split["num_bytes"] for split in self.splits.values()),
            "splits": self.splits,
            **{tag: dict(sorted(values.items())) for tag, values in self.tags.items()},
            "steps": self.steps,
            "problems": dict(sorted(self.problems.items())),
            "lengths": [[1 << bits - 1 if bits else 0, count] for bits, count in sorted(self.lengths.items())],
        }


def _add(pair: dict[str, int], num_bytes: int, num_documents: int = 1) -> None:
    pair["num_documents"] += num_documents
    pair["num_bytes"] += num_bytes
