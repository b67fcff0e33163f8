"""Tags and the entities that they mean: every scheme says the same, and masks allow exactly what is valid."""

from collections import Counter
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundling.tasks.files import RowFault
from foundling.tasks.tags import (
    Entity,
    Scheme,
    allowed,
    character_entities,
    converted,
    detect_scheme,
    entities_of,
    is_valid,
    names_of,
    repaired,
    tags_of,
    word_entities,
)

SCHEMES: list[Scheme] = ["BIO", "IOB1", "BIOES", "BILOU"]
TYPES = ["X", "Y-Z", ""]


@st.composite
def drawn(draw: Any) -> tuple[list[Entity], int]:
    """Entities that do not overlap, and how many tokens there are."""
    at, found = 0, []
    for gap, length, name in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(TYPES)), max_size=6)
    ):
        found.append((at + gap, at + gap + length, name))
        at += gap + length
    return found, at + draw(st.integers(0, 2))


def any_tags() -> Any:
    return st.lists(st.sampled_from(["O", *(f"{p}{n}" for p in "BIESLUM" for n in ("", "-X", "-Y-Z"))]), max_size=10)


AT_ANY_PACE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no fault of what is drawn."""


@AT_ANY_PACE
@given(drawn(), st.sampled_from(SCHEMES))
def test_tags_mean_the_entities_that_they_were_made_of(made: tuple[list[Entity], int], scheme: Scheme) -> None:
    entities, length = made
    tags = tags_of(entities, length, scheme)
    assert entities_of(tags) == entities
    assert set(tags) <= set(names_of(TYPES, scheme))


@AT_ANY_PACE
@given(drawn(), st.sampled_from(SCHEMES), st.sampled_from(SCHEMES))
def test_there_and_back_is_the_same(made: tuple[list[Entity], int], one: Scheme, other: Scheme) -> None:
    tags = tags_of(*made, one)
    assert converted(converted(tags, other), one) == tags
    assert converted(tags, other) == tags_of(*made, other)


@AT_ANY_PACE
@given(any_tags(), st.sampled_from(SCHEMES))
def test_what_was_repaired_is_valid_and_what_is_valid_stays(tags: list[str], scheme: Scheme) -> None:
    whole, changes = repaired(tags, scheme)
    assert is_valid(whole, scheme)
    assert repaired(whole, scheme) == (whole, Counter())
    assert changes.total() == sum(old != new for old, new in zip(tags, whole, strict=True))
    assert (whole == tags) == is_valid(tags, scheme)


WRITTEN = {
    "BIO": ["B-X", "I-X", "I-X", "B-X", "O", "B-X", "B-Y"],
    "IOB1": ["I-X", "I-X", "I-X", "B-X", "O", "I-X", "I-Y"],
    "BIOES": ["B-X", "I-X", "E-X", "S-X", "O", "S-X", "S-Y"],
    "BILOU": ["B-X", "I-X", "L-X", "U-X", "O", "U-X", "U-Y"],
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_as_it_is_written(scheme: Scheme) -> None:
    entities = [(0, 3, "X"), (3, 4, "X"), (5, 6, "X"), (6, 7, "Y")]
    assert tags_of(entities, 7, scheme) == WRITTEN[scheme]
    assert tags_of(reversed(entities), 7, scheme) == WRITTEN[scheme]
    assert tags_of([(0, 1, "")], 1, scheme) == [WRITTEN[scheme][5][0]]


def test_bmes_is_read() -> None:
    assert entities_of(["B-X", "M-X", "E-X", "S-Y", "O"]) == [(0, 3, "X"), (3, 4, "Y")]


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        (["I-X", "I-X", "O"], [(0, 2, "X")]),
        (["B-X", "I-Y"], [(0, 1, "X"), (1, 2, "Y")]),
        (["E-X", "I-X", "E-X", "I-X"], [(0, 1, "X"), (1, 3, "X"), (3, 4, "X")]),
        (["B-X", "B-X", "S-X"], [(0, 1, "X"), (1, 2, "X"), (2, 3, "X")]),
        ([], []),
    ],
)
def test_broken_sequences_are_read_as_conlleval_does(tags: list[str], entities: list[Entity]) -> None:
    assert entities_of(tags) == entities


def test_what_was_repaired_is_counted() -> None:
    whole, changes = repaired(["O", "I-X", "I-X", "B-Y", "I-X", "O", "I-X"], "BIO")
    assert whole == ["O", "B-X", "I-X", "B-Y", "B-X", "O", "B-X"]
    assert changes == {"I-X to B-X": 3}


@pytest.mark.parametrize("tag", ["X-PER", "per", "", "O-PER", "b-PER", "PER-B"])
def test_a_tag_of_no_scheme_is_named(tag: str) -> None:
    for read in (lambda: entities_of(["O", tag]), lambda: detect_scheme([[tag]])):
        with pytest.raises(RowFault, match=f"its tag {tag!r} must be O, or B-"):
            read()


@pytest.mark.parametrize(
    ("entities", "fault"),
    [
        ([(0, 2, "X"), (1, 3, "Y")], r"overlap; got \(0, 2, 'X'\) and \(1, 3, 'Y'\)"),
        ([(1, 2, "X"), (0, 3, "Y")], "overlap"),
        ([(0, 1, "X"), (0, 1, "Y")], "overlap"),
        ([(1, 1, "X")], "must lie in its 3 tokens"),
        ([(2, 4, "X")], r"\(2, 4, 'X'\) must lie in its 3 tokens"),
        ([(-1, 1, "X")], "must lie"),
    ],
)
def test_entities_that_tags_cannot_say_are_named(entities: list[Entity], fault: str) -> None:
    for scheme in SCHEMES:
        with pytest.raises(RowFault, match=fault):
            tags_of(entities, 3, scheme)


@AT_ANY_PACE
@given(st.lists(drawn(), min_size=1, max_size=8), st.sampled_from(SCHEMES))
def test_a_scheme_is_known_again_or_says_the_same(made: list[tuple[list[Entity], int]], scheme: Scheme) -> None:
    sequences = [tags_of(*one, scheme) for one in made]
    found = detect_scheme(sequences)
    assert all(is_valid(tags, found) for tags in sequences) or not any(entities for entities, _ in made)
    if any(end - start == 1 for entities, _ in made for start, end, _ in entities):
        assert found == scheme


@pytest.mark.parametrize(
    ("sequences", "scheme"),
    [
        ([["O", "O"], []], "BIO"),
        ([["B-X", "I-X"]] * 9 + [["I-X"]], "BIO"),
        ([["I-X", "B-X"]], "IOB1"),
        ([["I-X"]] * 9 + [["B-X"]], "IOB1"),
        ([["B-X", "M-X", "E-X"]], "BIOES"),
    ],
)
def test_one_broken_sequence_does_not_decide(sequences: list[list[str]], scheme: Scheme) -> None:
    assert detect_scheme(sequences) == scheme


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("types", [["X"], ["X", "Y"], [""]])
def test_masks_allow_exactly_the_valid_sequences(scheme: Scheme, types: list[str]) -> None:
    tags = names_of(types, scheme)
    masks = allowed(tags, scheme)
    assert masks.starts.dtype == masks.ends.dtype == masks.transitions.dtype == bool
    num_valid = 0
    for length in range(1, 5):
        for path in product(range(len(tags)), repeat=length):
            steps = all(masks.transitions[a, b] for a, b in pairwise(path))
            passes = bool(masks.starts[path[0]] and steps and masks.ends[path[-1]])
            assert passes == is_valid([tags[c] for c in path], scheme), [tags[c] for c in path]
            num_valid += passes
    assert num_valid > 10


def test_masks_follow_the_order_of_the_list_and_shut_out_other_schemes() -> None:
    masks = allowed(["E-X", "I-X", "O", "B-X"], "BIO")
    assert masks.starts.tolist() == [False, False, True, True]
    assert masks.ends.tolist() == [False, True, True, True]
    assert not masks.transitions[0].any()
    assert not masks.transitions[:, 0].any()
    assert masks.transitions[:, 1].tolist() == [False, True, False, True]
    assert allowed([], "BIO").transitions.shape == (0, 0)


TEXT = "Ada Lovelace, of  London."
WORDS = [(0, 3), (4, 12), (12, 13), (14, 16), (18, 24), (24, 25)]


def test_characters_and_words_say_the_same() -> None:
    words = [(0, 2, "PER"), (4, 5, "LOC")]
    characters = [(0, 12, "PER"), (18, 24, "LOC")]
    assert character_entities(words, WORDS) == characters
    assert word_entities(characters, WORDS, TEXT) == words
    assert word_entities(reversed(characters), WORDS, TEXT) == words
    assert word_entities([(17, 24, "LOC")], WORDS, TEXT) == [(4, 5, "LOC")]
    assert word_entities([(0, 25, "ALL")], WORDS, TEXT) == [(0, 6, "ALL")]


@AT_ANY_PACE
@given(st.data())
def test_words_to_characters_and_back_is_the_same(data: Any) -> None:
    gaps = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=8))
    words, at = [], 0
    for gap, length in gaps:
        words.append((at + gap, at + gap + length))
        at += gap + length
    entities = data.draw(drawn())[0]
    entities = [entity for entity in entities if entity[1] <= len(words)]
    assert word_entities(character_entities(entities, words), words, "x" * at) == entities


@pytest.mark.parametrize(
    ("entity", "fault"),
    [
        ((0, 26, "X"), r"\(0, 26, 'X'\) must lie in its text, which has 25 characters"),
        ((-1, 3, "X"), "must lie"),
        ((3, 3, "X"), "must lie"),
        ((1, 12, "X"), r"\(1, 12, 'X'\), 'da Lovelace', must not begin or end inside a word; got 'Ada'"),
        ((4, 8, "X"), "'Love', must not begin or end inside a word; got 'Lovelace'"),
        ((5, 8, "X"), "inside a word; got 'Lovelace'"),
        ((16, 18, "X"), r"must hold a word; it is '  '"),
    ],
)
def test_an_entity_that_words_cannot_say_is_named(entity: Entity, fault: str) -> None:
    with pytest.raises(RowFault, match=fault):
        word_entities([entity], WORDS, TEXT)
