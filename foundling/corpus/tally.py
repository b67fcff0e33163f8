"""What became of every document: the figures of the manifest and the report.

Each segment has a `SegmentTally`, plain data once it is finished, so that a build that goes on has its figures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from foundling.core.log import logger
from foundling.corpus.document import Size
from foundling.corpus.notes import StepNotes
from foundling.corpus.readers.base import PROBLEMS
from foundling.corpus.redaction import Redactor
from foundling.corpus.split import SPLITS

_MAX_TOLD = 5
"""Files with one kind of problem that are told one by one; the rest is counted."""
_MAX_EXAMPLES = 20
_MAX_TOLD_RUNS = 20
_MAX_LINE_RUNS = 10_000
"""Line numbers (or runs of them) that the manifest lists of one kind of problem; `problems/*.parquet` has them all."""


def _sums() -> dict[str, int]:
    return {"num_documents": 0, "num_bytes": 0, "num_words": 0}


class Problems:
    """What could not be used as it was. Comes in the order of the inputs: a file's problems stand together."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, Any]] = {}
        self._file = ""
        self._here: dict[str, tuple[list[int], str, int]] = {}  # kind -> (lines, first detail, events), of this file
        self._num_listed: Counter[str] = Counter()  # line runs by kind

    def add(self, file: str, kind: str, detail: str, line: int | None, count: int) -> None:
        if file != self._file:
            self._end_file()
            self._file = file
        new = {"meaning": PROBLEMS[kind], "count": 0, "num_files": 0, "examples": [], "lines": {}}
        entry = self.kinds.setdefault(kind, new)
        entry["count"] += count
        if len(entry["examples"]) < _MAX_EXAMPLES:
            entry["examples"].append(f"{file}: {detail}")
        lines, first, num_events = self._here.get(kind, ([], detail, 0))
        if line is not None:
            lines.append(line)
        self._here[kind] = (lines, first, num_events + 1)

    def end(self) -> None:
        """After the last problem: tells the last file, and what was not told in full."""
        self._end_file()
        for entry in self.kinds.values():
            if entry["num_files"] > _MAX_TOLD:
                logger.warning("%d %s, in all", entry["count"], entry["meaning"])

    def _end_file(self) -> None:
        for kind, (lines, first, num_events) in self._here.items():
            entry, runs = self.kinds[kind], _runs(lines)
            entry["num_files"] += 1
            room = _MAX_LINE_RUNS - self._num_listed[kind]
            if runs and room > 0:
                entry["lines"][self._file] = _listed(runs, room)
                self._num_listed[kind] += len(runs)
            if entry["num_files"] <= _MAX_TOLD:
                logger.warning("%s: %s", self._file, _told(entry["meaning"], runs, first, num_events))
        self._here = {}


def _told(meaning: str, runs: Sequence[str], first: str, num_events: int) -> str:
    if num_events == 1:
        return first
    if not runs:
        return f"{first}; and {num_events - 1} more"
    return f"{num_events} {meaning} (lines {_listed(runs, _MAX_TOLD_RUNS)})"


def _listed(runs: Sequence[str], limit: int) -> str:
    return ", ".join(runs[:limit]) + (f" and {len(runs) - limit} more" if len(runs) > limit else "")


def _runs(lines: Sequence[int]) -> list[str]:
    """Ascending numbers as text, neighbours together: [3, 5, 6, 7] -> ['3', '5-7']."""
    runs: list[list[int]] = []
    for line in lines:
        if runs and line <= runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    return [str(first) if first == last else f"{first}-{last}" for first, last in runs]


class SegmentTally:
    """One segment's figures. redactor: says what may be shown in samples."""

    def __init__(self, steps: Sequence[str], redactor: Redactor | None = None) -> None:
        self.redactor = redactor or Redactor()
        self.read = _sums()
        self.steps = [(kind, StepNotes(self.redactor)) for kind in steps]
        self.problems = Problems()
        self.summary: dict[str, Any] | None = None  # of the step that knows other documents, the last one

    def merge(self, told: Mapping[str, Any]) -> None:
        """Adds what a `Segment` noted on a batch."""
        num_documents, *size = told["read"]
        _add(self.read, Size(*size), num_documents)
        for (_, notes), plain in zip(self.steps, told["steps"], strict=False):
            notes.merge(plain)

    def plain(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "steps": [notes.plain() for _, notes in self.steps],
            "problems": self.problems.kinds,
            "summary": self.summary,
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """The figures that `plain` gave, into an empty tally."""
        self.read, self.problems.kinds, self.summary = plain["read"], plain["problems"], plain["summary"]
        for (_, notes), told in zip(self.steps, plain["steps"], strict=True):
            notes.merge(told)


class KeptTally:
    """Figures of the documents that stay."""

    def __init__(self) -> None:
        self.splits = {split: _sums() for split in SPLITS}
        self.tags: dict[str, dict[str, dict[str, int]]] = {"sources": {}, "domains": {}, "languages": {}}
        self._lengths: Counter[int] = Counter()

    def add(self, tags: Sequence[str | None], split: str, size: Size, num_characters: int) -> None:
        """tags: source, domain and language."""
        _add(self.splits[split], size)
        for sums, value in zip(self.tags.values(), tags, strict=True):
            if value is not None:
                _add(sums.setdefault(value, _sums()), size)
        self._lengths[num_characters.bit_length()] += 1

    def moved(self, old: str, new: str, sizes: Sequence[Size]) -> None:
        for size in sizes:
            _add(self.splits[new], size)
            _add(self.splits[old], Size(-size.num_bytes, -size.num_words), -1)

    def figures(self) -> dict[str, Any]:
        """`lengths`: [fewest characters, number of documents] by octave."""
        return {
            **{name: sum(split[name] for split in self.splits.values()) for name in _sums()},
            "splits": self.splits,
            **{tag: dict(sorted(values.items())) for tag, values in self.tags.items()},
            "lengths": [[1 << bits - 1 if bits else 0, count] for bits, count in sorted(self._lengths.items())],
        }


def taken(segments: Sequence[SegmentTally]) -> list[str]:
    """`length took 3 (too_short 3)`, for each step that took any."""
    told = []
    for kind, notes in (step for segment in segments for step in segment.steps):
        if notes.dropped:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(notes.dropped.items()))
            told.append(f"{kind} took {sum(notes.dropped.values())} ({reasons})")
    return told


def counts(segments: Sequence[SegmentTally], kept: KeptTally) -> dict[str, Any]:
    """Everything, as plain data for the manifest."""
    before = segments[0].read
    steps = []
    for segment in segments:
        for kind, notes in segment.steps:
            figures = notes.figures()
            given = {f"{name}_in": before[name] for name in _sums()}
            steps.append({"step": kind, **given, **figures})
            before = figures
        if segment.summary is not None:
            steps[-1]["summary"] = segment.summary
    return {
        **{f"{name}_read": value for name, value in segments[0].read.items()},
        **kept.figures(),
        "steps": steps,
        "problems": dict(sorted(segments[0].problems.kinds.items())),
    }


def _add(sums: dict[str, int], size: Size, num_documents: int = 1) -> None:
    sums["num_documents"] += num_documents
    sums["num_bytes"] += size.num_bytes
    sums["num_words"] += size.num_words
