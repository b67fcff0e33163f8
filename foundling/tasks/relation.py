"""What relation two entities of a text have, in which direction, or none: one of several labels.

Tokens that mark the entities are put around them, and the label is read from the hidden states of the two first marks
(Baldini Soares et al. 2019, arXiv:1906.03158, section 3.3). The marks are tokens that the vocabulary has, so that the
model's stays as it is: unused ones, or punctuation (R-BERT, Wu & He 2019, arXiv:1905.08284). A decoder sees nothing of
what follows a mark. It reads the marked entities once more behind the text, and the label from the marks that end them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.heads.base import HeadConfig
from foundling.tasks import classification
from foundling.tasks.base import Facts, Measured, RowFault
from foundling.tasks.fields import field_of, has_field
from foundling.tasks.rows import TaskRow
from foundling.tokenizers.base import Tokenizer

Span = tuple[int, int]
"""The first character or token, and the one behind the last."""

_MARKERS = (("[unused1]", "[unused2]", "[unused3]", "[unused4]"), ("$", "$", "#", "#"))
"""Before and after the first entity, before and after the second; the first that a vocabulary has."""
_TAG = re.compile(r"<(/?)e([12])>")
_DIRECTED = re.compile(r"[^()]+\((e1,e2|e2,e1)\)")
"""A label of SemEval-2010 task 8."""
_NO_RELATION = {"other", "no_relation", "norelation", "no", "none", "na", "n/a", "nil", "无", "无关系"}


@dataclass(frozen=True)
class Example(classification.Example):
    head: Span = (0, 0)
    """Characters of the first entity (e1) in the text, which has no marks."""
    tail: Span = (0, 0)
    """Of the second (e2), which may stand before it."""

    @property
    def key(self) -> str:
        return f"{self.text}\n{self.head} {self.tail}"


class Config(classification.Config):
    kind: str = "relation"
    """Name of the part."""
    target: Literal["label"] = "label"
    """A relation is one of several labels."""
    markers: tuple[str, str, str, str] | None = None
    """Tokens of the vocabulary before and after the first entity, before and after the second; None: [unused1] to
    [unused4], or $ $ # #."""
    no_relation: str | None = None
    """The label that says that there is no relation, which the F1 leaves out; None: Other, no_relation, NA, none, ...,
    where there is one."""

    metric: ClassVar[str] = "f1_macro"

    def example(self, data: Mapping[str, Any], *, known: bool) -> Example:
        """Of a text with <e1>...</e1> and <e2>...</e2>; or of a text, or tokens, with head and tail: {start, end}, the
        first character or token and the one behind the last. Tokens are joined with spaces."""
        if has_field(data, "head", self.fields):
            text, head, tail = self._with_places(data)
        else:
            text, head, tail = _unmarked(field_of(data, "text", self.fields))
        if head[0] < tail[0] < head[1] < tail[1] or tail[0] < head[0] < tail[1] < head[1]:
            raise RowFault(f"its entities must not cross; got {text[slice(*head)]!r} and {text[slice(*tail)]!r}")
        label = field_of(data, "label", self.fields) if known else None
        return Example(text, label=None if label is None else self._truth(label), head=head, tail=tail)

    def _with_places(self, data: Mapping[str, Any]) -> tuple[str, Span, Span]:
        is_text = has_field(data, "text", self.fields)
        whole = field_of(data, "text" if is_text else "tokens", self.fields)
        if is_text and not isinstance(whole, str):
            raise RowFault(f"its text must be text; got {whole!r}")
        if not is_text and not (isinstance(whole, list) and all(isinstance(w, str) and w.strip() for w in whole)):
            raise RowFault(f"its tokens must be a list of words; got {str(whole)[:80]}")
        spans = [_span(role, field_of(data, role, self.fields), len(whole)) for role in ("head", "tail")]
        text: str = whole if is_text else " ".join(whole)
        if not is_text:
            ends = np.cumsum([len(word) + 1 for word in whole]) - 1
            spans = [(int(ends[a]) - len(whole[a]), int(ends[b - 1])) for a, b in spans]
        for role, span in zip(("head", "tail"), spans, strict=True):
            if not text[slice(*span)].strip():
                raise RowFault(f"its {role} must hold a character to read; got {text[slice(*span)]!r}")
        return text, spans[0], spans[1]

    def learn(self, examples: Mapping[str, Sequence[classification.Example]]) -> Facts:
        facts = super().learn(examples)
        usual = [label for label in facts["labels"] if re.sub("[ -]", "_", label).casefold() in _NO_RELATION]
        if self.no_relation is not None and self.no_relation not in facts["labels"]:
            raise UserError(
                f"no_relation must be one of the labels ({', '.join(facts['labels'])})", got=repr(self.no_relation)
            )
        return {**facts, "no_relation": self.no_relation or (usual[0] if len(usual) == 1 else None)}

    def build(self, tokenizer: Tokenizer, body: Any, facts: Facts) -> "Relation":
        return Relation(self, tokenizer, body, facts)


def _unmarked(text: Any) -> tuple[str, Span, Span]:
    """A text without its marks, and where its entities lie then."""
    if not isinstance(text, str) or not text.strip():
        raise RowFault(f"its text must be text with a character to read; got {text!r}")
    pieces, places, length, last = [], {}, 0, 0
    tags = list(_TAG.finditer(text))
    if sorted(tag[0] for tag in tags) != ["</e1>", "</e2>", "<e1>", "<e2>"]:
        raise RowFault(f"its text must hold <e1>, </e1>, <e2> and </e2> once each; got {text[:120]!r}")
    for tag in tags:
        pieces.append(text[last : tag.start()])
        length += len(pieces[-1])
        places[tag[0]], last = length, tag.end()
    whole = "".join([*pieces, text[last:]])
    spans = [(places[f"<e{number}>"], places[f"</e{number}>"]) for number in (1, 2)]
    for number, (start, end) in enumerate(spans, 1):
        if not whole[start:end].strip():
            raise RowFault(
                f"<e{number}> must stand before </e{number}>, with a character to read between; got {text[:120]!r}"
            )
    return whole, spans[0], spans[1]


def _span(role: str, value: Any, length: int) -> Span:
    if isinstance(value, Mapping) and {"start", "end"} <= set(value):
        value = [value["start"], value["end"]]
    if not (isinstance(value, list) and len(value) == 2 and all(type(place) is int for place in value)):
        raise RowFault(f"its {role} must be {{start, end}}; got {str(value)[:80]}")
    start, end = value
    if not 0 <= start < end <= length:
        raise RowFault(f"its {role} must lie in 0 to {length}, start before end; got {start} to {end}")
    return start, end


class Relation(classification.Classification):
    config: Config

    def __init__(self, config: Config, tokenizer: Tokenizer, body: Any, facts: Facts) -> None:
        super().__init__(config, tokenizer, body, facts)
        self._markers = _marker_ids(config, tokenizer)

    def head(self) -> HeadConfig:
        config: HeadConfig = load_part("heads", "pair").Config.model_validate(
            {"kind": "pair", "num_classes": max(1, len(self.labels)), **self.head_style(whole_row=True)}
        )
        return config

    def rows(self, examples: Sequence[Any]) -> list[TaskRow]:
        found, num_cut = [], 0
        for number, example in enumerate(examples):
            ids, offsets = self.tokenizer.encode_offsets(example.text)
            head, tail = (_tokens_of(span, offsets) for span in (example.head, example.tail))
            again = [] if self.family != "gpt" else [self._entities(ids, head, tail)]
            room = self.max_length - self.frame.num_special(1 + len(again)) - sum(map(len, again)) - len(self._markers)
            pieces = kept_pieces(len(ids), head, tail, room)
            if not pieces or head[0] == head[1] or tail[0] == tail[1]:
                raise UserError(
                    "an example's entities must be of characters that the tokenizer reads, and fit into a row of "
                    f"{self.max_length} tokens",
                    got=" and ".join(repr(example.text[slice(*span)][:80]) for span in (example.head, example.tail))
                    + f" in {example.text[:120]!r}",
                )
            num_cut += room < len(ids)
            marked, opened = self._marked(ids, (head, tail), pieces)
            framed = self.frame([marked, *again])
            if again:
                places = [framed.starts[1] + head[1] - head[0] + 1, framed.starts[1] + len(again[0]) - 1]
            else:
                places = [framed.starts[0] + place for place in opened]
            found.append(
                TaskRow(
                    sample=number, source=0, start=number, tokens=framed.tokens, segments=framed.segments,
                    example=number, places=np.array(places), targets=self._answer(example)[0],
                )
            )  # fmt: skip
        self.tell_cut(num_cut, len(examples), "texts are too long for a row: cut around their entities")
        return found

    def _entities(self, ids: np.ndarray, head: Span, tail: Span) -> list[int]:
        """Both entities between their marks, without the text."""
        before_head, after_head, before_tail, after_tail = self._markers
        return [
            before_head, *ids[slice(*head)].tolist(), after_head,
            before_tail, *ids[slice(*tail)].tolist(), after_tail,
        ]  # fmt: skip

    def _marked(self, ids: np.ndarray, spans: tuple[Span, Span], pieces: Sequence[Span]) -> tuple[list[int], list[int]]:
        """The pieces of a text with marks around the entities, and where the marks before them are. Of marks between
        the same tokens, those behind an entity come first; and those of an entity within another are inside."""
        marks = sorted(
            mark
            for number, (start, end) in enumerate(spans)
            for mark in ((start, 1, -end, number), (end, 0, -start, -number))
        )
        tokens: list[int] = []
        opened = [0, 0]
        for at, stop in pieces:
            for place, opens, _, number in marks:
                if at <= place <= stop:
                    tokens += ids[at:place].tolist()
                    if opens:
                        opened[number] = len(tokens)
                    tokens.append(self._markers[2 * abs(number) + 1 - opens])
                    at = place
            tokens += ids[at:stop].tolist()
        return tokens, opened

    def measured(self, examples: Sequence[Any], answers: Sequence[Mapping[str, Any]]) -> list[Measured]:
        golds = [e.label for e in examples]
        probabilities = [a["probabilities"] for a in answers]
        best = [max(p, key=p.__getitem__) for p in probabilities]  # what is withheld is measured too
        none = self.facts["no_relation"]
        never_learnt = sorted(set(golds) - set(self.labels))  # an example of one is missed, and counts
        related = [label for label in [*self.labels, *never_learnt] if label != none]
        calibration = Measured("calibration", golds, probabilities, {})
        if none in (None, "Other") and all(_DIRECTED.fullmatch(label) for label in related):
            return [Measured("semeval", golds, best, {}), calibration]
        return [Measured("f1", golds, best, {"labels": related}), Measured("accuracy", golds, best, {}), calibration]


def _marker_ids(config: Config, tokenizer: Tokenizer) -> tuple[int, ...]:
    for markers in [config.markers] if config.markers is not None else _MARKERS:
        ids = [tokenizer.id_of(marker) for marker in markers]
        if None not in ids and tokenizer.unk_id not in ids:
            return tuple(ids)  # type: ignore[arg-type]
    raise UserError(
        "task.markers must name four tokens of the tokenizer's vocabulary to mark the entities with",
        got="neither [unused1] to [unused4] nor $ and #" if config.markers is None else ", ".join(config.markers),
        do="name tokens that texts hardly hold",
    )


def _tokens_of(span: Span, offsets: np.ndarray) -> Span:
    """The tokens that the characters lie in, the one behind the last not counted; offsets: see `encode_offsets`."""
    start = int(np.searchsorted(offsets[:, 1], span[0], "right"))
    return start, max(start, int(np.searchsorted(offsets[:, 0], span[1], "left")))


def kept_pieces(num_tokens: int, head: Span, tail: Span, room: int) -> list[Span]:
    """Which tokens of a text are kept so that there are at most `room`: all; else those around both entities; where
    these are too far apart, those around each. None: the entities alone are too long."""
    if num_tokens <= room:
        return [(0, num_tokens)]
    start, end = min(head[0], tail[0]), max(head[1], tail[1])
    if end - start <= room:
        return [_around(start, end, num_tokens, room)]
    free = room - (head[1] - head[0]) - (tail[1] - tail[0])
    if free < 0 or max(head[0], tail[0]) < min(head[1], tail[1]):
        return []
    return [_around(a, b, num_tokens, b - a + free // 2) for a, b in sorted((head, tail))]


def _around(start: int, end: int, num_tokens: int, size: int) -> Span:
    first = max(0, min(start - (size - (end - start)) // 2, num_tokens - size))
    return first, first + size
