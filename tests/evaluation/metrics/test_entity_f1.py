"""Entities: against what seqeval said (references.json) to random tags and to real ones, against every span tried, and
by hand."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundling.core.errors import UserError
from foundling.evaluation.metrics.entity_f1 import Config, entities, strict_entities
from tests.evaluation.metrics import real

RECORDED = json.loads(Path(__file__).with_name("references.json").read_text(encoding="utf-8"))


def are_those_of_seqeval(figures: dict[str, float], recorded: dict[str, list[float]]) -> None:
    wanted = dict(recorded)
    micro, macro, _ = (wanted.pop(f"{name} avg") for name in ("micro", "macro", "weighted"))
    assert [figures[name] for name in ("precision", "recall", "f1")] == pytest.approx(micro)
    if wanted:
        assert figures["f1_macro"] == pytest.approx(macro[2])
    types = {name.partition("/")[2] for name in figures if "/" in name}
    assert types == set(wanted)
    for name, three in wanted.items():
        assert [figures[f"{kind}/{name}"] for kind in ("precision", "recall", "f1")] == pytest.approx(three), name


@pytest.mark.parametrize("mode", ["conlleval", "strict"])
def test_figures_are_those_of_seqeval(mode: Any) -> None:
    for case in RECORDED["entities"]:
        config = Config(mode=mode, scheme=case["scheme"])
        are_those_of_seqeval(config.build().score(case["golds"], case["answers"]).figures(), case[mode])


@pytest.mark.skipif(not real.TASKS.is_dir(), reason="the real tasks (../shared/data/tasks) are not here")
@pytest.mark.parametrize("mode", ["conlleval", "strict"])
def test_figures_of_real_texts_are_those_of_seqeval(mode: Any) -> None:
    golds, answers = real.entity_tags()
    recorded = RECORDED["real"]["wnut17"]
    assert real.hash_of(golds, answers) == recorded["hash"], "other answers than those that were recorded"
    are_those_of_seqeval(Config(mode=mode).build().score(golds, answers).figures(), recorded[mode])


def spans(tags: list[str], is_entity: Callable[[list[str], int, int], bool]) -> set[tuple[int, int, str]]:
    pairs = itertools.combinations(range(len(tags) + 1), 2)
    return {(i, j, tags[i].partition("-")[2]) for i, j in pairs if is_entity(tags, i, j)}


def one_type(tags: list[str], i: int, j: int) -> bool:
    return "O" not in tags[i:j] and len({tag[1:] for tag in tags[i:j]}) == 1


def begins(tags: list[str], i: int) -> bool:
    """Whether something new begins at token i, that is none or after the last too."""
    if i in (0, len(tags)) or tags[i] == "O" or tags[i - 1] == "O":
        return True
    return tags[i][0] in "BS" or tags[i - 1][0] in "ES" or tags[i][1:] != tags[i - 1][1:]


def loose(tags: list[str], i: int, j: int) -> bool:
    inner = not any(begins(tags, k) for k in range(i + 1, j))
    return one_type(tags, i, j) and begins(tags, i) and begins(tags, j) and inner


def whole_bio(tags: list[str], i: int, j: int) -> bool:
    goes_on = j < len(tags) and tags[j] == "I" + tags[i][1:]
    return one_type(tags, i, j) and [tag[0] for tag in tags[i:j]] == ["B", *"I" * (j - i - 1)] and not goes_on


def whole_bioes(tags: list[str], i: int, j: int) -> bool:
    wanted = "S" if j - i == 1 else "B" + "I" * (j - i - 2) + "E"
    return one_type(tags, i, j) and "".join(tag[0] for tag in tags[i:j]) == wanted


@pytest.mark.parametrize("length", range(5))
def test_every_sequence_of_tags_gives_the_spans_that_the_definition_gives(length: int) -> None:
    for sequence in itertools.product(["O", "B-x", "I-x", "I-y", "E-x", "S-x"], repeat=length):
        tags = list(sequence)
        assert set(entities(tags)) == spans(tags, loose), tags
        assert set(strict_entities(tags, "BIOES")) == spans(tags, whole_bioes), tags
        if not any(tag[0] in "ES" for tag in tags):
            assert set(strict_entities(tags, "BIO")) == spans(tags, whole_bio), tags


def test_a_lone_inside_tag_is_an_entity_unless_strict() -> None:
    golds, said = [["B-PER", "I-PER", "O"]], [["I-PER", "I-PER", "O"]]
    assert Config().build().score(golds, said).figures()["f1"] == 1
    assert Config(mode="strict").build().score(golds, said).figures()["f1"] == 0


def test_half_an_entity_is_wrong() -> None:
    figures = Config().build().score([["B-PER", "I-PER", "B-LOC"]], [["B-PER", "O", "B-LOC"]]).figures()
    assert figures["precision"] == figures["recall"] == figures["f1"] == 0.5
    assert (figures["f1/PER"], figures["f1/LOC"]) == (0, 1)


def test_entities_may_be_given_as_spans() -> None:
    spans_of = [[(0, 2, "PER"), (4, 5, "LOC")], []]
    said = [[[4, 5, "LOC"], [0, 1, "PER"], [4, 5, "LOC"]], [(1, 2, "LOC")]]
    figures = Config().build().score(spans_of, said).figures()
    assert (figures["precision"], figures["recall"]) == pytest.approx((1 / 3, 1 / 2))
    assert figures == Config().build().score([set(map(tuple, one)) for one in spans_of], said).figures()


def test_no_entity_anywhere_is_0() -> None:
    assert Config().build().score([["O"], []], [["O"], []]).figures()["f1"] == 0


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(UserError, match="a tag for each token; got 1 for 2"):
        Config().build().score([["O", "O"]], [["O"]])
    with pytest.raises(UserError, match=r"B, I, E or S with a type .*; got 'PER'"):
        Config().build().score([["B-PER"]], [["PER"]])
    with pytest.raises(UserError, match="strict BIO knows the prefixes B, I, O; got E-PER"):
        Config(mode="strict").build().score([["B-PER", "E-PER"]], [["O", "O"]])
    with pytest.raises(UserError, match="entities must be"):
        Config().build().score([[(0, 1)]], [[]])
