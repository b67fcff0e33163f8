"""The answers of a fine-tuned model beside what is true, whatever the task: read from `answers-SPLIT.jsonl`.

What is made of a line depends on the shape of its answer alone: a label with probabilities, labels, a number, entities
as tags, a text for a question, a text. So tasks need no code here.
"""

# Shapes: K = labels.

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foundling.core.registry import load_part
from foundling.evaluation.judge import FOLDER as METRICS
from foundling.evaluation.metrics.calibration import Bin, reliability_curve
from foundling.evaluation.metrics.calibration import Config as Calibration
from foundling.tasks.tags import Entity, entities_of

Row = Mapping[str, Any]

NOTHING = "no entity"
"""What stands in a confusion matrix where one side has no entity with this span."""
_TRUTH = ("label", "labels", "targets", "answers", "tags", "number", "id")
"""Fields of a line that are no part of what the model read."""
_NUM_BUCKETS = 5
_FEWEST_IN_BUCKET = 5


@dataclass(frozen=True)
class Case:
    """One example and its answer, for people."""

    text: str
    true: str
    said: str
    score: float
    """How right it is: the larger the better."""
    confidence: float | None = None
    """What the model gave the likeliest mistake in it, or its answer; None: it does not say."""


@dataclass(frozen=True)
class Confusion:
    """How often what is true was answered with what."""

    labels: list[str]
    counts_KK: np.ndarray
    """[true, said]."""


@dataclass(frozen=True)
class LabelCounts:
    label: str
    right: int
    said: int
    true: int

    @property
    def precision(self) -> float:
        return self.right / self.said if self.said else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.said + self.true) if self.said + self.true else 0.0


@dataclass(frozen=True)
class Cases:
    cases: list[Case]
    measure: str
    """What a case's score is."""
    best: float
    """The score of what is wholly right."""
    form: Callable[[float], str]
    """A score or a mean of scores, for people."""
    confusion: Confusion | None = None
    labels: Sequence[LabelCounts] = ()
    curve: Sequence[Bin] = ()
    """The reliability curve of probabilities."""

    def worst(self, number: int) -> list[Case]:
        """What is not wholly right: the least right first, and of those the most confident."""
        wrong = [case for case in self.cases if case.score < self.best]
        return sorted(wrong, key=lambda case: (case.score, -(case.confidence or 0.0)))[:number]

    def by_length(self) -> list[tuple[int, int, int, float]]:
        """(shortest, longest, examples, mean score) of groups of like length in characters, about equally many in
        each; examples of one length are never parted."""
        found = sorted(self.cases, key=lambda case: len(case.text))
        size = max(_FEWEST_IN_BUCKET, -(-len(found) // _NUM_BUCKETS))
        groups: list[list[Case]] = []
        for case in found:
            if not groups or (len(groups[-1]) >= size and len(case.text) > len(groups[-1][-1].text)):
                groups.append([])
            groups[-1].append(case)
        return [
            (len(one[0].text), len(one[-1].text), len(one), sum(case.score for case in one) / len(one))
            for one in groups
        ]


def cases_of(rows: Sequence[Row]) -> Cases | None:
    """Lines of an answers file: what the model read, what is true, `answer`. None: a shape that is not known, or no
    line that says what is true."""
    for key, truth, make in _SHAPES:
        known = [row for row in rows if key in row["answer"] and row.get(truth) is not None]
        if known:
            return make(known)
    return None


def confusion(pairs: Sequence[tuple[str, str]]) -> Confusion:
    """pairs: (true, said)."""
    labels = sorted({label for pair in pairs for label in pair}, key=lambda label: (label == NOTHING, label))
    place = {label: k for k, label in enumerate(labels)}
    counts_KK = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for true, said in pairs:
        counts_KK[place[true], place[said]] += 1
    return Confusion(labels, counts_KK)


def _one_label(rows: Sequence[Row]) -> Cases:
    golds = [row["label"] for row in rows]
    probabilities = [row["answer"]["probabilities"] for row in rows]
    best = [max(p, key=p.__getitem__) for p in probabilities]
    cases = []
    for row, gold, said, p in zip(rows, golds, best, probabilities, strict=True):
        shown = said if row["answer"]["label"] is not None else f"{said} (withheld)"
        cases.append(Case(_read(row), gold, shown, float(gold == said), p[said]))
    pairs = list(zip(golds, best, strict=True))
    scored = load_part(METRICS, "calibration").Config().build().score(golds, probabilities)
    sets = [({gold}, {said}) for gold, said in pairs]
    return Cases(cases, "accuracy", 1.0, _percent, confusion(pairs), _counts(sets), scored.curve())


def _label_sets(rows: Sequence[Row]) -> Cases:
    sets = [(set(row["label"]), set(row["answer"]["labels"])) for row in rows]
    cases, probabilities, right = [], list[float](), list[bool]()
    for row, (true, said) in zip(rows, sets, strict=True):
        p = row["answer"]["probabilities"]
        probabilities += p.values()
        right += [label in true for label in p]
        mistakes = [p[label] for label in said - true] + [1 - p.get(label, 0.0) for label in true - said]
        sure = max(mistakes, default=None)
        cases.append(Case(_read(row), _listed(sorted(true)), _listed(sorted(said)), float(true == said), sure))
    curve = _curve(probabilities, right)
    return Cases(cases, "share with all labels right", 1.0, _percent, labels=_counts(sets), curve=curve)


def _number(rows: Sequence[Row]) -> Cases:
    cases = [
        Case(_read(row), f"{row['label']:.4g}", f"{said:.4g}", -abs(said - row["label"]))
        for row in rows
        for said in [row["answer"]["number"]]
    ]
    return Cases(cases, "mean distance", 0.0, lambda score: f"{abs(score):.3g}")


def _tags(rows: Sequence[Row]) -> Cases:
    cases, pairs, sets, sure, right = [], [], [], [], []
    for row in rows:
        true, said = (set(entities_of(side["tags"])) for side in (row, row["answer"]))
        sets.append((true, said))
        spans = [{(first, after): label for first, after, label in side} for side in (true, said)]
        pairs += [(spans[0].get(at, NOTHING), spans[1].get(at, NOTHING)) for at in sorted({*spans[0], *spans[1]})]
        words = row["answer"].get("words") or row["tokens"]
        found = row["answer"].get("entities", ())
        sure += [e["score"] for e in found]
        right += [_span(e) in true for e in found]
        scores = [e["score"] for e in found if _span(e) not in true]
        shown = _entities(true, words), _entities(said, words)
        cases.append(Case(_read(row), *shown, score=float(true == said), confidence=max(scores, default=None)))
    matrix = confusion(pairs) if pairs else None
    curve = _curve(sure, right)
    return Cases(cases, "share with all entities right", 1.0, _percent, matrix, _counts(sets), curve)


def _answered(rows: Sequence[Row]) -> Cases:
    golds, said = [row["answers"] for row in rows], [row["answer"]["answer"] for row in rows]
    scores = _each("squad", golds, said, "f1")
    sure = [row["answer"].get("score") for row in rows]
    cases = [
        Case(_read(row), _listed(gold, "no answer"), text or "no answer", score, one)
        for row, gold, text, score, one in zip(rows, golds, said, scores, sure, strict=True)
    ]
    exact = _each("squad", golds, said, "exact_match")
    curve = [] if None in sure else _curve(sure, [score == 1.0 for score in exact])
    return Cases(cases, "F1", 1.0, lambda score: f"{score:.3f}", curve=curve)


def _written(rows: Sequence[Row]) -> Cases:
    return _texts(rows, [list(row["targets"]) for row in rows])


def _spoken(rows: Sequence[Row]) -> Cases | None:
    told = [row for row in rows if row["messages"][-1]["role"] == "assistant"]
    return _texts(told, [[row["messages"][-1]["content"]] for row in told]) if told else None


def _texts(rows: Sequence[Row], golds: Sequence[list[str]]) -> Cases:
    said = [row["answer"]["text"] for row in rows]
    cases = [
        Case(_read(row), _listed(gold), text, score)
        for row, gold, text, score in zip(rows, golds, said, _each("chrf", golds, said, "chrf"), strict=True)
    ]
    return Cases(cases, "mean chrF of an answer", 100.0, lambda score: f"{score:.1f}")


_SHAPES: tuple[tuple[str, str, Callable[[Sequence[Row]], Cases | None]], ...] = (
    ("label", "label", _one_label),
    ("labels", "label", _label_sets),
    ("number", "label", _number),
    ("tags", "tags", _tags),
    ("answer", "answers", _answered),
    ("text", "targets", _written),
    ("text", "messages", _spoken),
)
"""(what an answer has, what a line has that says what is true, what is made of such lines)."""


def _each(metric: str, golds: Sequence[Any], said: Sequence[Any], figure: str) -> list[float]:
    """A metric's figure of each example alone."""
    scored = load_part(METRICS, metric).Config().build().score(golds, said)
    return [scored.figures(np.array([number]))[figure] for number in range(len(said))]


def _curve(sure: Sequence[float], right: Sequence[bool]) -> list[Bin]:
    """The reliability curve of answers that come with a probability of being right."""
    return reliability_curve(np.array(sure), np.array(right, dtype=np.float64), Calibration()) if sure else []


def _counts(sets: Sequence[tuple[set[Any], set[Any]]]) -> list[LabelCounts]:
    """Of labels, or of entities by their type, each example's (true, said)."""
    name = lambda one: one[2] if isinstance(one, tuple) else one
    right, said, true = Counter[str](), Counter[str](), Counter[str]()
    for gold, answer in sets:
        right.update(map(name, gold & answer))
        said.update(map(name, answer))
        true.update(map(name, gold))
    return [LabelCounts(label, right[label], said[label], true[label]) for label in sorted(said.keys() | true.keys())]


def _read(row: Row) -> str:
    """What the model read, as text; the entities of a relation stand in brackets."""
    parts = []
    for key, value in row.items():
        if key == "messages":
            told = value[:-1] if value[-1]["role"] == "assistant" else value
            parts += [f"{one['role']}: {one['content']}" for one in told]
        elif key == "tokens":
            parts.append(" ".join(value))
        elif isinstance(value, str) and key not in _TRUTH:
            parts.append(_marked(value, row) if key == "text" else value)
    return "\n".join(parts)


def _marked(text: str, row: Row) -> str:
    spans = [(row[key], name) for key, name in (("head", "e1"), ("tail", "e2")) if isinstance(row.get(key), list)]
    for (start, end), name in sorted(spans, reverse=True):
        text = f"{text[:start]}[{text[start:end]}]{name}{text[end:]}"
    return text


def _span(entity: Mapping[str, Any]) -> Entity:
    first, after = entity.get("words", (entity["start"], entity["end"]))
    return first, after, entity["label"]


def _entities(found: set[Entity], words: Sequence[str]) -> str:
    return _listed([f"{label}: {' '.join(words[first:after])}" for first, after, label in sorted(found)], NOTHING)


def _listed(texts: Sequence[str], nothing: str = "none") -> str:
    return "; ".join(dict.fromkeys(texts)) or nothing


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
