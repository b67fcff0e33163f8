"""Tags that say which tokens are an entity and of what type, and what entities they mean.

| scheme | an entity of three tokens, one of one token, and one of the same type right behind |
|---|---|
| BIO (IOB2) | `B-X I-X I-X`, `B-X`; behind: `B-X` |
| IOB1 | `I-X I-X I-X`, `I-X`; behind: `B-X` |
| BIOES | `B-X I-X E-X`, `S-X`; behind: as ever |
| BILOU | as BIOES with `L` for `E` and `U` for `S` |

(Tjong Kim Sang & Veenstra 1999, Ratinov & Roth 2009.) BMES, usual for Chinese, is read as BIOES with `M` for `I`.
Broken sequences are read as conlleval reads them: an entity may begin with any tag, and ends where its type changes,
`O` comes, another begins (`B`, `S`) or it has ended (`E`, `S`).
"""

# Shapes: C = classes (tags).

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from foundling.tasks.files import RowFault

Scheme = Literal["BIO", "IOB1", "BIOES", "BILOU"]
Entity = tuple[int, int, str]
"""First token (or character), the one after the last, type."""
Span = tuple[int, int]
"""First character, and the character after the last."""

_MEANT = {"O": "O", "B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I"}
_BILOU = {"E": "L", "S": "U"}
_LETTERS = {"BIO": "BI", "IOB1": "IB", "BIOES": "BIES", "BILOU": "BILU"}
"""Prefixes of a scheme, as its tags are listed."""


def _parted(tag: str) -> tuple[str, str]:
    """Its prefix in BIOES, and its type, which may be empty."""
    prefix, _, name = tag.partition("-")
    meant = _MEANT.get(prefix)
    if meant is None or (meant == "O" and tag != "O"):
        raise RowFault(f"its tag {tag!r} must be O, or B-, I-, E-, S-, L-, U- or M- and a type")
    return meant, name


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags of any scheme mean, in order. RowFault: a tag of none."""
    found: list[Entity] = []
    start, open_name = 0, None
    for place, (prefix, name) in enumerate(map(_parted, tags)):
        if open_name is not None and (prefix in "OBS" or name != open_name):
            found.append((start, place, open_name))
            open_name = None
        if prefix != "O" and open_name is None:
            start, open_name = place, name
        if prefix in "ES" and open_name is not None:
            found.append((start, place + 1, open_name))
            open_name = None
    return found if open_name is None else [*found, (start, len(tags), open_name)]


def tags_of(entities: Iterable[Entity], length: int, scheme: Scheme) -> list[str]:
    """The tags of `length` tokens. RowFault: an entity that is empty, lies outside, or overlaps another."""
    tags = ["O"] * length
    before = (0, 0, "")
    for entity in sorted(entities):
        start, end, name = entity
        if not 0 <= start < end <= length:
            raise RowFault(f"its entity {entity} must lie in its {length} tokens")
        if start < before[1]:
            raise RowFault(f"its entities must not overlap; got {before} and {entity}")
        is_behind = before[1] == start and before[2] == name and start > 0
        for place in range(start, end):
            prefix = _prefix(scheme, place == start, place == end - 1, is_behind)
            tags[place] = f"{prefix}-{name}" if name else prefix
        before = entity
    return tags


def _prefix(scheme: Scheme, is_first: bool, is_last: bool, is_behind: bool) -> str:
    if scheme == "IOB1":
        return "B" if is_first and is_behind else "I"
    prefix = "B" if is_first else "I"
    if scheme == "BIO" or not is_last:
        return prefix
    prefix = "S" if is_first else "E"
    return _BILOU[prefix] if scheme == "BILOU" else prefix


def converted(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """The same entities in another scheme. A sequence that is valid in `scheme` comes back as it is."""
    return tags_of(entities_of(tags), len(tags), scheme)


def is_valid(tags: Sequence[str], scheme: Scheme) -> bool:
    """Whether the tags are what `scheme` writes for the entities that they mean."""
    return converted(tags, scheme) == list(tags)


def repaired(tags: Sequence[str], scheme: Scheme) -> tuple[list[str], Counter[str]]:
    """The tags made valid in `scheme`, and what was changed: (`I-PER to B-PER`: how often)."""
    whole = converted(tags, scheme)
    return whole, Counter(f"{old} to {new}" for old, new in zip(tags, whole, strict=True) if old != new)


def detect_scheme(sequences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme that sequences are most likely in, by their prefixes and, of BIO and IOB1, by how entities begin.

    Where nothing tells, it is BIO; so is a mixture of `I-X` and `B-X` at the beginning of entities, unless most begin
    with `I-X`. RowFault: a tag of no scheme.
    """
    prefixes: Counter[str] = Counter()
    begins: Counter[str] = Counter()
    for tags in sequences:
        prefixes.update(tag.partition("-")[0] for tag in tags)
        # What follows an entity of its type begins with B in either scheme, and tells nothing.
        ends = (0, "")
        for start, end, name in entities_of(tags):
            if (start, name) != ends or start == 0:
                begins[tags[start].partition("-")[0]] += 1
            ends = (end, name)
    if prefixes["L"] or prefixes["U"]:
        return "BILOU" if prefixes["L"] + prefixes["U"] >= prefixes["E"] + prefixes["S"] else "BIOES"
    if prefixes["E"] or prefixes["S"]:
        return "BIOES"
    return "IOB1" if begins["I"] > begins["B"] else "BIO"


def names_of(types: Iterable[str], scheme: Scheme) -> list[str]:
    """All tags of a scheme for these types, `O` first."""
    return ["O", *(f"{prefix}-{name}" if name else prefix for name in types for prefix in _LETTERS[scheme])]


@dataclass(frozen=True)
class Allowed:
    """What a scheme allows, for a list of tags."""

    starts: np.ndarray
    """Whether a sequence may begin with it, bool [C]."""
    transitions: np.ndarray
    """Whether a tag (column) may follow another (row), bool [C, C]."""
    ends: np.ndarray
    """Whether a sequence may end with it, bool [C]."""


def allowed(tags: Sequence[str], scheme: Scheme) -> Allowed:
    """Masks for decoding: exactly the sequences that are valid in `scheme` pass. RowFault: a tag of no scheme."""
    known = [tag == "O" or tag.partition("-")[0] in _LETTERS[scheme] for tag in tags]
    parted = [_parted(tag) if is_known else None for tag, is_known in zip(tags, known, strict=True)]
    transitions_CC = np.array([[_follows(old, new, scheme) for new in parted] for old in parted], dtype=bool)
    starts_C = np.array([_follows(_OUTSIDE, new, scheme) for new in parted], dtype=bool)
    ends_C = np.array([_follows(old, _OUTSIDE, scheme) for old in parted], dtype=bool)
    return Allowed(starts_C, transitions_CC.reshape(len(tags), len(tags)), ends_C)


_OUTSIDE = ("O", "")
"""What stands before a sequence and behind it is as good as `O`."""


def _follows(old: tuple[str, str] | None, new: tuple[str, str] | None, scheme: Scheme) -> bool:
    """Whether a tag may follow another; None: one that the scheme does not have."""
    if old is None or new is None:
        return False
    (old_prefix, old_name), (new_prefix, new_name) = old, new
    is_same = old_prefix != "O" and old_name == new_name
    if scheme == "BIO":
        return new_prefix != "I" or is_same
    if scheme == "IOB1":
        return new_prefix != "B" or is_same
    if old_prefix in "BI":
        return new_prefix in "IE" and is_same
    return new_prefix in "OBS"


def word_entities(entities: Iterable[Entity], words: Sequence[Span], text: str) -> list[Entity]:
    """Entities by character as entities by word, in order; white space around their words does no harm.

    words: where each word of `text` stands, in order. RowFault: an entity outside the text, without a word, or that
    begins or ends inside one.
    """
    starts, ends = [start for start, _ in words], [end for _, end in words]
    found = []
    for start, end, name in sorted(entities):
        named = f"its entity {(start, end, name)}"
        if not 0 <= start < end <= len(text):
            raise RowFault(f"{named} must lie in its text, which has {len(text)} characters")
        first, after = bisect_right(ends, start), bisect_left(starts, end)
        if first >= after:
            raise RowFault(f"{named} must hold a word; it is {text[start:end]!r:.60}")
        for place, edge in ((first, start), (after - 1, end)):
            if starts[place] < edge < ends[place]:
                word = text[starts[place] : ends[place]]
                raise RowFault(
                    f"{named}, {text[start:end]!r:.60}, must not begin or end inside a word; got {word!r:.60}"
                )
        found.append((first, after, name))
    return found


def character_entities(entities: Iterable[Entity], words: Sequence[Span]) -> list[Entity]:
    """Entities by word as entities by character. words: where each word of the text stands."""
    return [(words[first][0], words[after - 1][1], name) for first, after, name in entities]
