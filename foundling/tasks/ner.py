"""Names in texts: which words are an entity, and of what kind. A tag for each word, one after the other.

Tags come from a linear layer, or from a conditional random field on it (`crf`). Either way the best sequence is taken
that the scheme allows. The first token of a word answers for it; of a model that reads in order the last, which has
seen the whole word. Long texts are read in windows that overlap.
"""

# Shapes: R = rows, M = places that the head reads, K = words of a text that have tokens, N = those of several texts,
# C = tags, S = entities found.

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from foundling.core.config import Part, PartConfig
from foundling.core.log import logger
from foundling.core.registry import load_part
from foundling.core.units import Count
from foundling.data.batch import Batch
from foundling.heads.base import HeadConfig
from foundling.objectives.base import Losses, Scale
from foundling.optim.losses import crf
from foundling.optim.losses.base import ClassLossConfig
from foundling.optim.losses.crf import Transitions
from foundling.tasks.base import Facts, HeadTask, Measured, RowFault, TaskConfig, fitted_temperature
from foundling.tasks.fields import field_of, has_field
from foundling.tasks.labels import learn_labels
from foundling.tasks.overlap import tell_overlap
from foundling.tasks.rows import TaskRow
from foundling.tasks.tags import (
    Entity,
    Scheme,
    Span,
    allowed,
    detect_scheme,
    entities_of,
    names_of,
    repaired,
    tags_of,
    word_entities,
)
from foundling.tasks.windows import windows
from foundling.tasks.words import join_words, split_words
from foundling.tokenizers.aligned import WordTokens
from foundling.tokenizers.base import Tokenizer

_SHOWN = 5
"""Kinds of mended tags that are shown; the others are counted."""


@dataclass(frozen=True)
class Example:
    text: str
    """The text as it came, or its words joined."""
    words: tuple[Span, ...]
    """Where each word stands in the text."""
    has_text: bool
    """Whether it came as a text, so that answers are told by character."""
    entities: tuple[Entity, ...] | None = None
    """What is true; None: unknown."""
    tags: tuple[str, ...] | None = None
    """As the file has them, where it has tags."""

    @property
    def tokens(self) -> list[str]:
        return [self.text[start:end] for start, end in self.words]


@dataclass(frozen=True)
class WordRow(TaskRow):
    words: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """The word of the text that each place answers for, int64 [M]."""


class Config(TaskConfig):
    kind: str = "ner"
    """Name of the part."""
    crf: bool = False
    """Whether a conditional random field scores which tag follows which."""
    scheme: Scheme = "BIO"
    """How the model says where entities begin and end; files may hold any."""
    loss: Annotated[PartConfig, Part("optim.losses")] | None = None
    """Without crf: how wrong tags are weighed, cross_entropy (with smoothing), focal; None: cross_entropy."""
    tag_names: tuple[str, ...] = ()
    """Names of tags that the files give as numbers, from 0 on: [O, B-PER, I-PER]."""
    overlap: Annotated[Count, Field(ge=0)] = 128
    """Tokens that neighbouring windows of a long text share; at most half of a window."""

    abstain_below: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Entities whose probability is below it are not told, in [0, 1)."""

    metric: ClassVar[str] = "f1"
    families: ClassVar[tuple[str, ...]] = ("bert", "gpt", "xlnet")
    later: ClassVar[tuple[str, ...]] = (*TaskConfig.later, "overlap", "abstain_below")

    @model_validator(mode="after")
    def _one_loss(self) -> Self:
        if self.crf and self.loss is not None:
            raise ValueError("a crf is trained by its own loss; leave out loss or crf")
        if not isinstance(self.loss, ClassLossConfig | None):
            raise ValueError("a loss of tags must be one of one true class: cross_entropy, label_smoothing, focal")
        return self

    def example(self, data: Mapping[str, Any], *, known: bool) -> Example:
        if has_field(data, "tokens", self.fields):
            return self._of_words(data, known)
        text = field_of(data, "text", self.fields)
        if not isinstance(text, str) or not (words := split_words(text)):
            raise RowFault(f"its text must have a word; got {text!r:.80}")
        found = _entities(text, words, field_of(data, "entities", self.fields)) if known else None
        return Example(text, tuple(words), True, found)

    def _of_words(self, data: Mapping[str, Any], known: bool) -> Example:
        words = field_of(data, "tokens", self.fields)
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise RowFault(f"its tokens must be a list of words; got {words!r:.80}")
        text, spans = join_words(words)
        if not known:
            return Example(text, tuple(spans), False)
        tags = self._named(field_of(data, "tags", self.fields))
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            numbers = "; what do they mean? task.tag_names=[O,B-PER,I-PER]" if _are_numbers(tags) else ""
            raise RowFault(f"its tags must be a list of words such as B-PER and O; got {tags!r:.80}{numbers}")
        if len(tags) != len(words):
            raise RowFault(f"it must have a tag for each token; got {len(tags)} for {len(words)}")
        return Example(text, tuple(spans), False, tuple(entities_of(tags)), tuple(tags))

    def _named(self, tags: Any) -> Any:
        """Tags by name, where they are numbers that have one."""
        if not (self.tag_names and _are_numbers(tags)):
            return tags
        if wrong := [tag for tag in tags if not 0 <= tag < len(self.tag_names)]:
            raise RowFault(
                f"its tags must be numbers below {len(self.tag_names)}, as many as tag_names; got {wrong[0]}"
            )
        return [self.tag_names[tag] for tag in tags]

    def texts(self, example: Example) -> Sequence[str]:
        return [example.text]

    def learn(self, examples: Mapping[str, Sequence[Example]]) -> Facts:
        tell_overlap({split: [(e.text, e.entities) for e in found] for split, found in examples.items()})
        for split, found in examples.items():
            _tell_tags(split, [e.tags for e in found if e.tags is not None])
        sets = {split: [[label for *_, label in e.entities or ()] for e in found] for split, found in examples.items()}
        labels = learn_labels(sets, fewest=1)
        counts = {label: sum(one.count(label) for one in sets["train"]) for label in labels}
        return {"tags": names_of(labels, self.scheme), "counts": counts}

    def build(self, tokenizer: Tokenizer, body: Any, facts: Facts) -> "Ner":
        return Ner(self, tokenizer, body, facts)


def _are_numbers(tags: Any) -> bool:
    return isinstance(tags, list) and bool(tags) and all(type(tag) is int for tag in tags)


def _tell_tags(split: str, tags: Sequence[Sequence[str]]) -> None:
    """In which scheme a split's tags are, and how many of them are not as it writes them."""
    if not tags:
        return
    scheme = detect_scheme(tags)
    changes = sum((repaired(one, scheme)[1] for one in tags), Counter[str]())
    logger.info("tags of %s: %s", split, scheme)
    if changes:
        shown = ", ".join(f"{change} ({number})" for change, number in changes.most_common(_SHOWN))
        logger.warning(
            "tags of %s: %d of %d are mended: %s%s", split, changes.total(), sum(map(len, tags)), shown,
            f", and {len(changes) - _SHOWN} kinds more" if len(changes) > _SHOWN else "",
        )  # fmt: skip


def _entities(text: str, words: Sequence[Span], given: Any) -> tuple[Entity, ...]:
    """Entities by word, of entities by character."""
    if not isinstance(given, list):
        raise RowFault(f"its entities must be a list of {{start, end, label}}; got {given!r:.80}")
    found = word_entities(map(_span, given), words, text)
    for left, right in pairwise(found):
        if right[0] < left[1]:
            raise RowFault(f"its entities must not overlap; got {left[2]} and {right[2]} of one word")
    return tuple(found)


def _span(given: Any) -> Entity:
    if isinstance(given, Mapping):
        label = given.get("label", given.get("type"))
        given = [given.get("start"), given.get("end"), label]
    whole = isinstance(given, list) and len(given) == 3 and all(type(x) is int for x in given[:2])
    if not whole or not isinstance(given[2], str) or not given[2]:
        raise RowFault(f"each of its entities must be {{start, end, label}}, by character; got {given!r:.80}")
    return given[0], given[1], given[2]


@dataclass(frozen=True)
class _Found:
    """Entities of several texts."""

    examples: list[int]
    """The text of each."""
    entities: list[Entity]
    """Which they are, by word."""
    scores: Callable[[float], np.ndarray]
    """A temperature -> the probability of each: that its words have its tags and that it goes no further, fp64 [S]."""


class Ner(HeadTask):
    loss_of_rows: ClassVar[bool] = False
    config: Config

    def __init__(self, config: Config, tokenizer: Tokenizer, body: Any, facts: Facts) -> None:
        super().__init__(config, tokenizer, body, facts)
        self.tags: list[str] = self.facts["tags"]
        self._number = {tag: i for i, tag in enumerate(self.tags)}
        self._in_order = self.family == "gpt"
        masks = allowed(self.tags, config.scheme)
        self._allowed = tuple(map(torch.from_numpy, (masks.transitions, masks.starts, masks.ends)))
        loss = config.loss or load_part("optim.losses", "cross_entropy").Config(kind="cross_entropy")
        self._loss = loss.build()

    def head(self) -> HeadConfig:
        kind = "token_crf" if self.config.crf else "token"
        config: HeadConfig = load_part("heads", kind).Config.model_validate(
            {"kind": kind, "num_classes": len(self.tags), **self.head_style(whole_row=False)}
        )
        return config

    def rows(self, examples: Sequence[Example]) -> list[WordRow]:
        """A row for each window of each text; a text none of whose words has a token has none."""
        encoded = self.tokenizer.encode_words([e.text for e in examples], [e.words for e in examples])
        found = enumerate(zip(examples, encoded, strict=True))
        return [row for number, (example, tokens) in found for row in self._windows(number, example, tokens)]

    def _windows(self, number: int, example: Example, tokens: WordTokens) -> Iterator[WordRow]:
        of_words = np.flatnonzero(tokens.words >= 0)
        words_K, at_K = np.unique(tokens.words[of_words], return_index=True)
        if not len(words_K):
            return
        firsts_K, lasts_K = of_words[at_K], of_words[np.append(at_K[1:], len(of_words)) - 1]
        cuts_K1 = np.concatenate([[0], firsts_K[1:], [len(tokens.ids)]])
        targets_K = self._targets(example, words_K)
        room = self.max_length - self.frame.num_special(1)
        for window in windows(cuts_K1, room, self.config.overlap, both_sides=not self._in_order):
            start = cuts_K1[window.first]
            end = min(cuts_K1[window.after], start + room)  # a word of more tokens than a row is cut
            framed = self.frame([tokens.ids[start:end]])
            answered = slice(window.first_answered, window.after_answered)
            places = np.minimum((lasts_K if self._in_order else firsts_K)[answered], end - 1)
            yield WordRow(
                sample=number, source=0, start=number, tokens=framed.tokens, segments=framed.segments,
                example=number, places=places - start + framed.starts[0], words=words_K[answered],
                targets=None if targets_K is None else targets_K[answered],
            )  # fmt: skip

    def _targets(self, example: Example, words_K: np.ndarray) -> np.ndarray | None:
        """The number of each word's tag; None where what is true is unknown."""
        if example.entities is None:
            return None
        places = [(*np.searchsorted(words_K, entity[:2]).tolist(), entity[2]) for entity in example.entities]
        tags = tags_of([place for place in places if place[0] < place[1]], len(words_K), self.config.scheme)
        return np.array([self._number[tag] for tag in tags]) if self._number.keys() >= set(tags) else None

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        losses_M: Tensor = self._loss.of_logits(logits, batch.targets_M)
        return losses_M

    def loss(self, model: Any, batch: Batch, scale: Scale, compiled: bool) -> Losses:
        losses_M = self._losses(model, batch)
        return Losses({self.config.kind: losses_M.sum() * scale.per_target}, losses_M.detach())

    def scores(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            return {"loss": self._losses(model, batch)}

    def _losses(self, model: Any, batch: Batch) -> Tensor:
        """The loss of each word [M], fp32; of a crf each word's share of its row's."""
        logits_MC = model(batch)
        if not self.config.crf:
            return self.losses(logits_MC, batch)
        assert batch.target_index_M is not None
        ends_R1 = torch.searchsorted(batch.target_index_M, batch.bounds_R1.to(batch.target_index_M))
        # A window may begin or end within an entity, so only neighbours are held to the scheme here.
        between_CC, start_C, _ = (mask.to(logits_MC.device) for mask in self._allowed)
        anywhere_C = torch.ones_like(start_C)
        chain = model.head.chain().allowing(between_CC, anywhere_C, anywhere_C)
        losses_R = crf.negative_log_likelihood(logits_MC.float(), ends_R1, batch.targets_M, chain)
        num_words_R = ends_R1.diff()
        return (losses_R / num_words_R).repeat_interleave(num_words_R)

    def answers(self, model: Any, examples: Sequence[Example]) -> list[dict[str, Any]]:
        rows = self.rows(examples)
        return self.decode(examples, rows, self.outputs(model, rows), self._chain(model))

    def decode(
        self,
        examples: Sequence[Example],
        rows: Sequence[TaskRow],
        outputs: Sequence[np.ndarray],
        chain: Transitions | None = None,
    ) -> list[dict[str, Any]]:
        """The answers: one best sequence of tags over each text, however many windows it was read in.

        chain: what a crf has learnt of the order of tags.
        """
        found = self._found(rows, outputs, chain)
        scores = found.scores(self.facts.get("temperature", 1.0)).tolist()
        said: list[list[tuple[Entity, float]]] = [[] for _ in examples]
        for number, entity, score in zip(found.examples, found.entities, scores, strict=True):
            if score >= self.config.abstain_below:
                said[number].append((entity, score))
        return [self._answer(example, own) for example, own in zip(examples, said, strict=True)]

    def calibrate(self, model: Any, examples: Sequence[Example]) -> Facts:
        """The temperature at which the entities found in held-back texts are as often right as their scores say."""
        if not examples:
            return {}
        rows = self.rows(examples)
        found = self._found(rows, self.outputs(model, rows), self._chain(model))
        right_S = np.array(
            [entity in (examples[k].entities or ()) for k, entity in zip(found.examples, found.entities, strict=True)],
            dtype=bool,
        )
        if right_S.all() or not right_S.any():
            return {}

        def nll(temperature: float) -> float:
            scores_S = found.scores(temperature)
            return -float(np.log(np.maximum(1e-12, np.where(right_S, scores_S, 1 - scores_S))).mean())

        return {"temperature": round(fitted_temperature(nll), 4)}

    def _chain(self, model: Any) -> Transitions | None:
        chain: Transitions | None = model.head.chain() if self.config.crf else None
        return chain

    def _found(self, rows: Sequence[TaskRow], outputs: Sequence[np.ndarray], chain: Transitions | None) -> "_Found":
        """The entities of the best sequence of tags over each text."""
        if not rows:
            return _Found([], [], lambda _: np.zeros(0))
        words_N = np.concatenate([row.words for row in rows if isinstance(row, WordRow)])
        of_N = np.repeat([row.example for row in rows], [len(row.places) for row in rows])
        numbers, firsts = np.unique(of_N, return_index=True)
        bounds = [*firsts.tolist(), len(of_N)]
        scores_NC, bounds_R1, held = torch.from_numpy(np.concatenate(outputs)), torch.tensor(bounds), self._held(chain)
        path_N = crf.viterbi(scores_NC, bounds_R1, held)[0]
        examples, places = [], []
        for number, start, end in zip(numbers.tolist(), bounds, bounds[1:], strict=False):
            for first, after, label in entities_of([self.tags[tag] for tag in path_N[start:end].tolist()]):
                examples.append(number)
                places.append((start + first, start + after, label))
        first_S, after_S = (torch.tensor([place[k] for place in places], dtype=torch.int64) for k in range(2))
        longer_S = torch.tensor([self._number[f"I-{x}" if x else "I"] for *_, x in places], dtype=torch.int64)

        def sure(temperature: float) -> np.ndarray:
            at = scores_NC / temperature, bounds_R1, path_N, first_S, after_S, held.at(temperature), longer_S
            return crf.span_probabilities(*at).double().numpy().clip(0, 1)

        entities = [(int(words_N[first]), int(words_N[after - 1]) + 1, label) for first, after, label in places]
        return _Found(examples, entities, sure)

    def _held(self, chain: Transitions | None) -> Transitions:
        """Scores of the order of whole texts' tags, on the CPU; of a linear head only what the scheme forbids."""
        parts = [torch.zeros(mask.shape) for mask in self._allowed]
        if chain is not None:
            parts = [part.detach().cpu() for part in (chain.between_CC, chain.start_C, chain.end_C)]
        return Transitions(*parts).allowing(*self._allowed)

    def _answer(self, example: Example, found: Sequence[tuple[Entity, float]]) -> dict[str, Any]:
        entities = []
        for (first, after, label), score in found:
            start, end = example.words[first][0], example.words[after - 1][1]
            place = {"start": start, "end": end} if example.has_text else {"start": first, "end": after}
            beside = {"words": [first, after]} if example.has_text else {}
            text = example.text[start:end]
            entities.append({**place, "label": label, "text": text, "score": round(score, 6), **beside})
        tags = tags_of([entity for entity, _ in found], len(example.words), self.config.scheme)
        words = {"words": example.tokens} if example.has_text else {}
        return {"entities": entities, "tags": tags, **words}

    def measured(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> list[Measured]:
        golds = [list(e.entities or ()) for e in examples]
        said = [[(*e.get("words", (e["start"], e["end"])), e["label"]) for e in a["entities"]] for a in answers]
        return [Measured("entity_f1", golds, said, {})]

    def describe(self, example: Example) -> dict[str, Any]:
        came = {"text": example.text} if example.has_text else {"tokens": example.tokens}
        true = None if example.entities is None else tags_of(example.entities, len(example.words), self.config.scheme)
        return came if true is None else {**came, "tags": true}
