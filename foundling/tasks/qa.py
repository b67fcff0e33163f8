"""Questions that a piece of a text answers, or nothing does: SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018).

Each token of the context gets a score for beginning the answer and one for ending it (Devlin et al. 2019, sections 4.2
and 4.3); the token that stands for the row gets those of no answer. A long context is read in windows that overlap.
Answers are cut from the context by its characters, so nothing is put together anew, in whatever script.
"""

# Shapes: R = rows, M = places that the head reads, P = places of a row, L = tokens of the longest answer, K = tokens
# of a context that stand for characters.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from foundling.core.config import Part, PartConfig
from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.core.registry import load_part
from foundling.core.units import Count
from foundling.data.batch import Batch
from foundling.heads.base import HeadConfig
from foundling.optim.losses.base import ClassLossConfig, shape_of
from foundling.tasks.base import Facts, HeadTask, Measured, RowFault, TaskConfig, fitted_temperature, softmax
from foundling.tasks.fields import field_of, has_field
from foundling.tasks.overlap import tell_overlap
from foundling.tasks.rows import TaskRow
from foundling.tokenizers.base import Tokenizer

_NUM_BEST = 20
"""Candidates of a question that share its probability, with no answer: as many as SQuAD's usual n-best lists have."""


@dataclass(frozen=True)
class Answer:
    text: str
    start: int
    """Place of its first character in the context."""

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class Example:
    question: str
    context: str
    id: str | None = None
    answers: tuple[Answer, ...] | None = None
    """What is right; the first is trained on. Empty: the context does not answer; None: unknown."""

    @property
    def name(self) -> str:
        return f"question {self.id}" if self.id is not None else f"question {self.question[:80]!r}"


@dataclass(frozen=True)
class Window(TaskRow):
    """A question with its context or a part of it. Its first place is that of no answer."""

    spans: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """Characters of the whole context that each further place stands for, int64 [P - 1, 2]."""


class Config(TaskConfig):
    kind: str = "qa"
    """Name of the part."""
    max_question: Annotated[Count, Field(ge=1)] = 64
    """Tokens of a question at most, and at most half of a row: longer ones are cut."""
    stride: Annotated[Count, Field(ge=1)] = 128
    """Tokens from the beginning of one window of a long context to that of the next, at most half a window."""
    longest_answer: Annotated[Count, Field(ge=1)] = 30
    """Tokens of an answer at most."""
    num_answers: Annotated[int, Field(ge=1, le=_NUM_BEST)] = 3
    """Candidates that stand beside an answer, the best first."""
    loss: Annotated[PartConfig, Part("optim.losses")] | None = None
    """How wrong places are weighed: cross_entropy, label_smoothing, focal; None: cross_entropy."""

    metric: ClassVar[str] = "f1"
    families: ClassVar[tuple[str, ...]] = ("bert", "gpt", "xlnet")
    later: ClassVar[tuple[str, ...]] = (*TaskConfig.later, "stride", "longest_answer", "num_answers")

    @model_validator(mode="after")
    def _loss_of_places(self) -> Self:
        if not isinstance(self.loss, ClassLossConfig | None):
            raise ValueError("a loss of places must be one of one true class: cross_entropy, label_smoothing, focal")
        return self

    def example(self, data: Mapping[str, Any], *, known: bool) -> Example:
        question, context = (field_of(data, role, self.fields) for role in ("question", "context"))
        for role, text in (("question", question), ("context", context)):
            if not isinstance(text, str) or not text.strip():
                raise RowFault(f"its {role} must be text with a character to read; got {text!r}")
        name = field_of(data, "id", self.fields) if has_field(data, "id", self.fields) else None
        asked = Example(question, context, None if name is None else str(name))
        return Example(question, context, asked.id, self._answers(data, asked)) if known else asked

    def _answers(self, data: Mapping[str, Any], asked: Example) -> tuple[Answer, ...]:
        impossible = (
            field_of(data, "is_impossible", self.fields) if has_field(data, "is_impossible", self.fields) else None
        )
        given = (
            [] if impossible and not has_field(data, "answers", self.fields) else field_of(data, "answers", self.fields)
        )
        answers = tuple(_answer(text, start, asked) for text, start in _pairs(given, asked))
        if impossible is not None and bool(impossible) == bool(answers):
            raise RowFault(
                f"{asked.name} must have an answer, or none where is_impossible is true; "
                f"got {len(answers)} and is_impossible {str(bool(impossible)).lower()}"
            )
        return answers

    def texts(self, example: Example) -> Sequence[str]:
        return (example.question, example.context)

    def learn(self, examples: Mapping[str, Sequence[Example]]) -> Facts:
        tell_overlap(
            {
                split: [(f"{e.question}\n{e.context}", tuple(a.text for a in e.answers or ())) for e in found]
                for split, found in examples.items()
            }
        )
        without = {split: sum(not e.answers for e in found) for split, found in examples.items()}
        if without["train"] == len(examples["train"]):
            raise UserError("some training questions must have an answer", got=f"{without['train']:,} without one")
        if any(without.values()):
            told = ", ".join(f"{number:,} of {len(examples[split]):,} {split}" for split, number in without.items())
            logger.info("questions without an answer: %s", told)
        if any(without.values()) and not without["train"]:
            logger.warning("each training question has an answer: the model will answer all others too")
        return {"unanswerable": without["train"] > 0}

    def build(self, tokenizer: Tokenizer, body: Any, facts: Facts) -> "Qa":
        return Qa(self, tokenizer, body, facts)


def _pairs(given: Any, asked: Example) -> list[tuple[Any, Any]]:
    """Texts with where they begin, of {text: [...], answer_start: [...]} or [{text: ..., answer_start: ...}, ...]."""
    if isinstance(given, Mapping) and {"text", "answer_start"} <= set(given):
        texts, starts = given["text"], given["answer_start"]
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return list(zip(texts, starts, strict=True))
    if isinstance(given, list) and all(
        isinstance(one, Mapping) and {"text", "answer_start"} <= set(one) for one in given
    ):
        return [(one["text"], one["answer_start"]) for one in given]
    raise RowFault(f"answers of {asked.name} must be {{text: [...], answer_start: [...]}}; got {str(given)[:80]}")


def _answer(text: Any, start: Any, asked: Example) -> Answer:
    if not isinstance(text, str) or not text.strip() or not isinstance(start, int) or isinstance(start, bool):
        raise RowFault(
            f"an answer of {asked.name} must be a text and the place where it begins; got {text!r}, {start!r}"
        )
    stands = asked.context[max(0, start) : max(0, start) + len(text)]
    if start < 0 or stands != text:
        places = [at for at in range(len(asked.context)) if asked.context.startswith(text, at)]
        near = min(places, key=lambda at: abs(at - start)) if places else None
        elsewhere = "it is nowhere in it" if near is None else f"it is at {near}"
        raise RowFault(
            f"the answer {text[:80]!r} of {asked.name} must stand in its context at {start}; "
            f"there stands {stands[:80]!r}, and {elsewhere}"
        )
    return Answer(text, start)


@dataclass(frozen=True)
class _Context:
    """A context as tokens."""

    ids: np.ndarray
    kept_K: np.ndarray
    """Its tokens that stand for characters."""
    spans_K2: np.ndarray
    """Which."""

    def piece(self, answer: Answer, asked: Example) -> tuple[int, int]:
        """First and last of the kept tokens that the answer's characters lie in."""
        first = int(np.searchsorted(self.spans_K2[:, 1], answer.start, "right"))
        last = int(np.searchsorted(self.spans_K2[:, 0], answer.end, "left")) - 1
        if last < first:
            raise UserError(
                f"the answer of {asked.name} must be made of characters that the tokenizer reads",
                got=repr(answer.text), do="take the question out",
            )  # fmt: skip
        return first, last


@dataclass
class _Found:
    """What is said to a question before it is weighed."""

    nothing: float
    """Score of no answer: the least of all windows, since an answer in one of them is enough."""
    best: list[tuple[float, int, int]]
    """Scores of pieces with their first character and the one behind the last, the best first."""


class Qa(HeadTask):
    config: Config

    def __init__(self, config: Config, tokenizer: Tokenizer, body: Any, facts: Facts) -> None:
        super().__init__(config, tokenizer, body, facts)
        self._room = self.max_length - self.frame.num_special(2)
        self._shape = shape_of(config.loss)

    def head(self) -> HeadConfig:
        config: HeadConfig = load_part("heads", "span").Config.model_validate(
            {"kind": "span", "num_classes": 2, **self.head_style(whole_row=False)}
        )
        return config

    def rows(self, examples: Sequence[Example]) -> list[Window]:
        questions = self.tokenizer.encode_batch([e.question for e in examples])
        contexts: dict[str, _Context] = {}
        found: list[Window] = []
        longest = min(self.config.max_question, self._room // 2)
        what = f"questions have more than {longest} tokens: their ends are not read (task.max_question)"
        self.tell_cut(sum(len(question) > longest for question in questions), len(examples), what)
        for number, (example, question) in enumerate(zip(examples, questions, strict=True)):
            if example.context not in contexts:
                ids, offsets = self.tokenizer.encode_offsets(example.context)
                kept_K = np.flatnonzero(offsets[:, 0] < offsets[:, 1])
                contexts[example.context] = _Context(ids, kept_K, offsets[kept_K])
            short = question[:longest]
            found += self._windows(number, example, short, contexts[example.context])
        self._tell_long(examples, contexts)
        return found

    def _tell_long(self, examples: Sequence[Example], contexts: Mapping[str, _Context]) -> None:
        """Says how many questions are never answered whole."""
        pieces = [contexts[e.context].piece(e.answers[0], e) for e in examples if e.answers]
        num_long = sum(last - first >= self.config.longest_answer for first, last in pieces)
        longest = self.config.longest_answer
        what = f"answers have more than longest_answer = {longest} tokens: the model will not say them whole"
        self.tell_cut(num_long, len(pieces), what)

    def _windows(self, number: int, example: Example, question: np.ndarray, context: _Context) -> list[Window]:
        room = self._room - len(question)
        step = min(self.config.stride, max(1, room // 2))
        answered = None
        if example.answers is not None:
            answered = context.piece(example.answers[0], example) if example.answers else (-1, -1)
        found = []
        for start in range(0, max(1, len(context.ids) - room + step), step):
            framed = self.frame([question, context.ids[start : start + room]])
            first, end = np.searchsorted(context.kept_K, [start, start + room]).tolist()
            places = context.kept_K[first:end] + (framed.starts[1] - start)
            truth = None
            if answered is not None:
                inside = first <= answered[0] and answered[1] < end
                truth = np.array(answered) - first + 1 if inside else np.zeros(2, np.int64)
            found.append(
                Window(
                    sample=number, source=0, start=number, tokens=framed.tokens, segments=framed.segments,
                    example=number, places=np.concatenate([[framed.whole], places]),
                    spans=context.spans_K2[first:end], truth=truth,
                )
            )  # fmt: skip
        return found

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of each row, the mean loss of where the answer begins and where it ends, over the row's places."""
        assert batch.target_index_M is not None
        assert batch.labels_R is not None, "rows whose answers are known"
        scores_M2, truth_R2 = logits.float(), batch.labels_R
        bounds_R1 = batch.bounds_R1.to(scores_M2.device, torch.int64)
        row_M = torch.bucketize(batch.target_index_M, bounds_R1[1:], right=True)
        first_R = torch.searchsorted(row_M, torch.arange(batch.num_rows, device=row_M.device))
        none_R2 = scores_M2.new_full((batch.num_rows, 2), -torch.inf)
        top_R2 = none_R2.scatter_reduce(0, row_M[:, None].expand_as(scores_M2), scores_M2.detach(), "amax")
        sums_R2 = torch.zeros_like(top_R2).index_add(0, row_M, (scores_M2 - top_R2[row_M]).exp())
        log_z_R2 = sums_R2.log() + top_R2
        log_p_R2 = scores_M2.gather(0, first_R[:, None] + truth_R2) - log_z_R2
        means_R2 = torch.zeros_like(top_R2).index_add(0, row_M, scores_M2) / row_M.bincount()[:, None]
        return (self._shape.of_truth(log_p_R2, log_z_R2, means_R2) + self._shape.z * log_z_R2.square()).mean(1)

    def decode(
        self, examples: Sequence[Example], rows: Sequence[TaskRow], outputs: Sequence[np.ndarray]
    ) -> list[dict[str, Any]]:
        found = self._candidates(examples, rows, outputs)
        return [self._say(example, one) for example, one in zip(examples, found, strict=True)]

    def _candidates(
        self, examples: Sequence[Example], rows: Sequence[TaskRow], outputs: Sequence[np.ndarray]
    ) -> list[_Found]:
        nothing = np.full(len(examples), np.inf)
        scores: list[dict[tuple[int, int], float]] = [{} for _ in examples]
        for row, output in zip(rows, outputs, strict=True):
            assert isinstance(row, Window)
            scores_P2 = output.reshape(-1, 2).astype(np.float64)
            nothing[row.example] = min(nothing[row.example], scores_P2[0].sum())
            own = scores[row.example]
            for score, first, last in best_pieces(scores_P2[1:], self.config.longest_answer, _NUM_BEST):
                piece = int(row.spans[first, 0]), int(row.spans[last, 1])
                own[piece] = max(score, own.get(piece, -np.inf))
        best = [
            sorted(((score, *piece) for piece, score in own.items()), key=lambda x: (-x[0], *x[1:])) for own in scores
        ]
        return [_Found(float(none), own[:_NUM_BEST]) for none, own in zip(nothing, best, strict=True)]

    def _probabilities(self, found: _Found, temperature: float) -> np.ndarray:
        """Of no answer, then of each candidate, fp64. There is always an answer where training knew nothing else."""
        may_lack = self.facts["unanswerable"] or not found.best
        scores = np.array([found.nothing if may_lack else -np.inf, *(score for score, _, _ in found.best)])
        return softmax(scores, temperature)

    def _say(self, example: Example, found: _Found) -> dict[str, Any]:
        none, *each = self._probabilities(found, self.facts.get("temperature", 1.0)).tolist()
        candidates = [
            {"answer": example.context[start:end], "start": start, "end": end, "score": round(p, 6)}
            for p, (_, start, end) in zip(each, found.best, strict=True)
        ]
        withheld = not found.best or (
            self.facts["unanswerable"] and found.nothing - found.best[0][0] > self.facts.get("threshold", 0.0)
        )
        said = {"answer": "", "start": None, "end": None, "score": round(none, 6)} if withheld else candidates[0]
        return {**said, "no_answer": round(none, 6), "candidates": candidates[: self.config.num_answers]}

    def calibrate(self, model: Any, examples: Sequence[Example]) -> Facts:
        """From held-back questions: the temperature at which the most likely candidate is as often right as it says,
        and by how much no answer's score must exceed the best answer's to be believed."""
        rows = self.rows(examples)
        found = self._candidates(examples, rows, self.outputs(model, rows))
        facts: Facts = {}
        likeliest = [int(self._probabilities(one, 1.0).argmax()) for one in found]
        right = [
            any(e.context[slice(*one.best[k - 1][1:])] == a.text for a in e.answers or ()) if k else not e.answers
            for e, one, k in zip(examples, found, likeliest, strict=True)
        ]
        if 0 < sum(right) < len(right):

            def nll(temperature: float) -> float:
                said = [self._probabilities(one, temperature)[k] for one, k in zip(found, likeliest, strict=True)]
                return -float(
                    np.log([max(1e-12, p if ok else 1 - p) for p, ok in zip(said, right, strict=True)]).mean()
                )

            facts["temperature"] = round(fitted_temperature(nll), 4)
        if self.facts["unanswerable"] and len({bool(e.answers) for e in examples}) == 2:
            pairs = [(e, one) for e, one in zip(examples, found, strict=True) if one.best]
            gaps = np.array([one.nothing - one.best[0][0] for _, one in pairs])
            said = np.array([_overlap(one.best[0][1:], e.answers or ()) for e, one in pairs])
            facts["threshold"] = round(fitted_threshold(gaps, said, np.array([not e.answers for e, _ in pairs])), 4)
        return facts

    def measured(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> list[Measured]:
        golds = [[answer.text for answer in e.answers or ()] for e in examples]
        return [Measured("squad", golds, [a["answer"] for a in answers], {})]

    def describe(self, example: Example) -> dict[str, Any]:
        found = super().describe(example)
        return found if example.answers is None else {**found, "answers": [answer.text for answer in example.answers]}


def best_pieces(scores_P2: np.ndarray, longest: int, num: int) -> list[tuple[float, int, int]]:
    """The `num` best pieces of at most `longest` places: the sum of their scores, the first place and the last.

    scores_P2: of each place for beginning and for ending, fp64.
    """
    if not len(scores_P2):
        return []
    ends = np.concatenate([scores_P2[:, 1], np.full(longest - 1, -np.inf)])
    sums_PL = scores_P2[:, :1] + np.lib.stride_tricks.sliding_window_view(ends, longest)
    sums = sums_PL.ravel()
    some = np.argpartition(-sums, min(num, len(sums)) - 1)[:num]
    best = sorted(some.tolist(), key=lambda at: (-sums[at], at))
    return [(float(sums[at]), at // longest, at // longest + at % longest) for at in best if sums[at] > -np.inf]


def fitted_threshold(gaps: np.ndarray, said: np.ndarray, unanswerable: np.ndarray) -> float:
    """The bound on `gaps` above which an answer is withheld that brings most: `said` where one is given, 1 where one is
    withheld that does not exist. Of equally good bounds the one nearest to 0."""
    order = np.argsort(gaps, kind="stable")
    gaps, said, lacking = gaps[order], said[order], unanswerable[order].astype(np.float64)
    totals = np.concatenate([[0.0], said.cumsum()]) + lacking.sum() - np.concatenate([[0.0], lacking.cumsum()])
    bounds = np.concatenate([gaps[:1] - 1, (gaps[:-1] + gaps[1:]) / 2, gaps[-1:] + 1])
    possible = np.concatenate([[True], gaps[:-1] < gaps[1:], [True]])
    best = possible & (totals >= totals[possible].max() - 1e-9)
    return float(min(bounds[best], key=abs))


def _overlap(piece: tuple[int, int], answers: Sequence[Answer]) -> float:
    """F1 of a piece's characters against those of the accepted answer that it meets best."""
    start, end = piece
    shared = [(max(0, min(end, a.end) - max(start, a.start)), a.end - a.start) for a in answers]
    return max((2 * both / (end - start + own) for both, own in shared), default=0.0)
