"""Exact match and F1 of answers: against what the scripts of SQuAD 1.1, SQuAD 2.0 and MLQA said (references.json), to
random texts and to real ones, and by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundling.core.errors import UserError
from foundling.evaluation.metrics.squad import Config, normalised
from tests.evaluation.metrics import real

RECORDED = json.loads(Path(__file__).with_name("references.json").read_text(encoding="utf-8"))


def figures(accepted: list[str] | str, answer: str, language: str = "en") -> tuple[float, float]:
    found = Config.model_validate({"language": language}).build().score([accepted], [answer]).figures()
    return found["exact_match"], found["f1"]


@pytest.mark.parametrize(("script", "language"), [("1.1", "en"), ("2.0", "en"), ("mlqa", "zh")])
def test_figures_are_those_of_the_published_scripts(script: str, language: str) -> None:
    """Of each question. Where nothing is left of an accepted text, 1.1 and MLQA differ from 2.0, which stands here."""
    for case in RECORDED["squad"][script]:
        found = figures(case["golds"], case["answer"], language)
        assert found == pytest.approx(case["figures"], abs=1e-12), case


@pytest.mark.skipif(not real.TASKS.is_dir(), reason="the real tasks (../shared/data/tasks) are not here")
@pytest.mark.parametrize("name", ["xquad-en", "xquad-zh"])
def test_figures_of_real_answers_are_those_of_the_published_scripts(name: str) -> None:
    """Of the whole; the language is told by the golds."""
    golds, answers = real.short_answers(name)
    recorded: dict[str, Any] = RECORDED["real"][name]
    assert real.hash_of(golds, answers) == recorded["hash"], "other answers than those that were recorded"
    found = Config().build().score(golds, answers).figures()
    if "2.0" in recorded:
        assert [found["exact_match"], found["f1"]] == pytest.approx(recorded["2.0"], abs=1e-12)
    known = [found["exact_match/answerable"], found["f1/answerable"]]
    assert known == pytest.approx(recorded["1.1" if name == "xquad-en" else "mlqa"], abs=1e-12)


@pytest.mark.parametrize(
    ("accepted", "answer", "exact", "f1"),
    [
        (["Denver Broncos"], "Denver Broncos", 1, 1),
        (["Denver Broncos"], "the denver  BRONCOS.", 1, 1),
        (["Denver Broncos"], "Broncos", 0, 2 / 3),
        (["Denver Broncos"], "Carolina Panthers", 0, 0),
        (["Denver Broncos"], "", 0, 0),
        (["Panthers", "the Denver Broncos"], "a Denver Broncos team", 0, 4 / 5),
        (["U.S."], "US", 1, 1),  # punctuation goes without leaving a space
        (["twenty-one"], "twentyone", 1, 1),
        (["the theatre"], "theatre", 1, 1),  # articles go as words only
        (["theatre"], "atre", 0, 0),
        (["a an the b"], "b", 1, 1),
        (["10 %"], "10", 1, 1),
        (["10 €"], "10", 0, 2 / 3),  # only ASCII punctuation goes
        (["“big”"], "big", 0, 0),
        (["one one two"], "one two two", 0, 2 / 3),  # bags: 2 in common of 3 and 3
        ([], "", 1, 1),
        ([], "something", 0, 0),
        ([], "the", 1, 1),  # nothing is left of it
        (["the"], "", 1, 1),  # no accepted text is left
        (["the", "cat"], "", 0, 0),
        (["the", "cat"], "cat", 1, 1),
    ],
)
def test_english(accepted: list[str], answer: str, exact: float, f1: float) -> None:
    assert figures(accepted, answer) == (exact, pytest.approx(f1))


@pytest.mark.parametrize(
    ("accepted", "answer", "exact", "f1"),
    [
        (["很低"], "很低。", 1, 1),
        (["公共部门贪腐"], "贪腐", 0, 2 * 2 / (6 + 2)),
        (["第 139"], "第139", 1, 1),  # a space beside a Chinese character says nothing
        (["《红楼梦》"], "红楼梦", 1, 1),
        (["IBM公司"], "ibm 公司", 1, 1),
        (["new york 市"], "newyork市", 0, 2 * 1 / (3 + 2)),  # Latin words are cut at spaces
        (["the 猫"], "猫", 0, 2 / 3),  # no articles
        (["3.5%"], "35", 1, 1),
        (["人人"], "人", 0, 2 / 3),
        ([], "无", 0, 0),
    ],
)
def test_chinese(accepted: list[str], answer: str, exact: float, f1: float) -> None:
    assert figures(accepted, answer, "zh") == (exact, pytest.approx(f1))


def test_the_language_is_told_by_the_accepted_texts_and_shown() -> None:
    metric = Config().build()
    assert "Chinese character" in metric.score([["很低"], []], ["", ""]).settings
    assert "no a/an/the" in metric.score([["low"], []], ["很低", ""]).settings
    assert "no a/an/the" in metric.score([[]], [""]).settings
    assert figures(["公共部门贪腐"], "贪腐", "auto") == (0, pytest.approx(1 / 2))
    assert figures(["東京タワーです"], "東京タワー", "auto") == (0, pytest.approx(2 * 5 / (7 + 5))), "kana by character"
    assert figures(["กรุงเทพ"], "กรุง", "auto")[1] > 0.5, "Thai too"


def test_examples_with_and_without_an_answer_are_also_told_apart() -> None:
    golds, said = [["cat"], ["big dog"], [], []], ["cat", "dog", "", "cow"]
    scored = Config().build().score(golds, said)
    assert scored.figures() == pytest.approx(
        {
            "f1": (1 + 2 / 3 + 1 + 0) / 4,
            "exact_match": 2 / 4,
            "f1/answerable": (1 + 2 / 3) / 2,
            "exact_match/answerable": 1 / 2,
            "f1/unanswerable": 1 / 2,
            "exact_match/unanswerable": 1 / 2,
        }
    )
    drawn = scored.figures(np.array([0, 0, 1]))
    assert drawn["f1"] == drawn["f1/answerable"] == pytest.approx((2 + 2 / 3) / 3)
    assert math.isnan(drawn["f1/unanswerable"])
    assert set(Config().build().score([["cat"]], ["cat"]).figures()) == {"f1", "exact_match"}


def test_one_accepted_text_needs_no_list() -> None:
    assert figures("cat", "the cat") == (1, 1)


def test_every_punctuation_mark_goes_in_chinese_and_ascii_ones_in_english() -> None:
    assert normalised("a，b。c！d—e…f「g」h$i", "zh") == ["abcdefghi"]
    assert normalised("b，c.d$e", "en") == ["b，cde"]


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="an answer must be a text; got None"):
        Config().build().score([[]], [None])
    with pytest.raises(UserError, match=r"a gold must be a text or a list of texts; got \[1\]"):
        Config().build().score([[1]], ["1"])
