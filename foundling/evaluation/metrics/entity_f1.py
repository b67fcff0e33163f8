"""F1 of named entities: an entity is right where its first and last token and its type are.

Where golds and answers are tags, what they say depends on how broken sequences are read:

- `conlleval`: as CoNLL's script and seqeval's default do. An entity goes on until its type changes, `O` comes, another
  begins (`B`, `S`) or it has ended (`E`, `S`); it may begin with any tag. A lone `I-PER` is an entity.
- `strict`: as seqeval's strict mode does. An entity begins with `B` (or `S`), and in BIOES ends with `E` (or `S`);
  what does not is none. A lone `I-PER` counts as nothing.
"""

# Shapes: N = examples, K = entity types, 3 = right, said, true.

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from foundling.core.errors import UserError
from foundling.evaluation.metrics._counts import by_name, rates
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of

Entity = tuple[int, int, str]
"""First token, token after the last, type."""


class Config(MetricConfig):
    """How tags are read."""

    kind: str = "entity_f1"
    """Name of the part."""
    mode: Literal["conlleval", "strict"] = "conlleval"
    """How broken tag sequences are read; conlleval is seqeval's default and what published figures mostly are."""
    scheme: Literal["BIO", "BIOES"] = "BIO"
    """What strict holds tags to."""

    def build(self) -> "EntityF1":
        return EntityF1(self)


class EntityF1:
    best = "f1"
    higher_is_better = True

    def __init__(self, config: Config) -> None:
        self.strict_scheme = config.scheme if config.mode == "strict" else None
        read = (
            f"only what is whole in {config.scheme} counts (seqeval's strict mode)"
            if self.strict_scheme
            else "an entity may begin with any tag (conlleval, seqeval's default mode)"
        )
        self.settings = f"entity F1, span and type both right, micro over types; tags: {read}"

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds, answers: tags such as `B-PER` and `O`, or entities (first, after the last, type).

        UserError: tags of no scheme, or another number of them than the gold has.
        """
        examples = examples_of(golds, answers)
        for gold, answer in zip(golds, answers, strict=True):
            if _are_tags(gold) and _are_tags(answer) and len(gold) != len(answer):
                raise UserError("an answer must have a tag for each token", got=f"{len(answer)} for {len(gold)}")
        true, said = ([self._entities(value) for value in side] for side in (golds, answers))
        types = sorted({entity[2] for entity in frozenset().union(*true, *said)})
        place = {name: k for k, name in enumerate(types)}
        counts_NK3 = np.zeros((len(golds), len(types), 3), dtype=np.int32)
        for number, (gold_set, said_set) in enumerate(zip(true, said, strict=True)):
            for at, entities in enumerate((gold_set & said_set, said_set, gold_set)):
                for entity in entities:
                    counts_NK3[number, place[entity[2]], at] += 1

        def figures(counts_K3: np.ndarray, num: int) -> dict[str, float]:
            precision, recall, f1 = rates(counts_K3.sum(0)).tolist()
            each = counts_K3[counts_K3[:, 1:].sum(-1) > 0]
            macro = float(rates(each)[:, 2].mean()) if len(each) else 0.0
            return {"f1": f1, "precision": precision, "recall": recall, "f1_macro": macro, **by_name(types, counts_K3)}

        return Sums(self.settings, True, examples, counts_NK3, figures)

    def _entities(self, value: Any) -> frozenset[Entity]:
        if _are_tags(value):
            found = strict_entities(value, self.strict_scheme) if self.strict_scheme else entities(value)
            return frozenset(found)
        try:
            return frozenset((int(first), int(after), str(name)) for first, after, name in value)
        except (TypeError, ValueError) as error:
            raise UserError("entities must be (first, after the last, type), or tags", got=f"{value!r:.60}") from error


def entities(tags: Sequence[str]) -> Iterator[Entity]:
    """Entities of a tag sequence as conlleval reads it: BIO, BIOES, IOB1, whole or broken."""
    first, open_type = 0, None
    for place, (prefix, name) in enumerate(map(_split, tags)):
        if open_type is not None and (prefix in "OBS" or name != open_type):
            yield first, place, open_type
            open_type = None
        if prefix != "O" and open_type is None:
            first, open_type = place, name
        if prefix in "ES" and open_type is not None:
            yield first, place + 1, open_type
            open_type = None
    if open_type is not None:
        yield first, len(tags), open_type


def strict_entities(tags: Sequence[str], scheme: str) -> Iterator[Entity]:
    """Entities that are whole in a scheme, `BIO` or `BIOES`. UserError: a tag of another."""
    first, open_type = 0, None
    for place, (prefix, name) in enumerate([*map(_split, tags), ("O", "")]):
        if prefix not in scheme:
            raise UserError(f"strict {scheme} knows the prefixes {', '.join(scheme)}", got=tags[place])
        if open_type is not None and (prefix in "OBS" or name != open_type):
            if scheme == "BIO":
                yield first, place, open_type
            open_type = None
        if prefix in "BS":
            first, open_type = place, name
        if prefix in "ES" and open_type is not None:
            yield first, place + 1, open_type
            open_type = None


def _are_tags(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(tag, str) for tag in value)


def _split(tag: str) -> tuple[str, str]:
    """The prefix, and the type or `_` where there is none."""
    prefix, _, name = tag.partition("-")
    if prefix not in ("B", "I", "O", "E", "S") or (prefix == "O" and name):
        raise UserError("a tag must be O, or B, I, E or S with a type (B-PER)", got=repr(tag))
    return prefix, name or "_"
