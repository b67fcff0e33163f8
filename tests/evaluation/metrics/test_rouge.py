"""ROUGE: against what rouge-score said (references.json) to random texts and to real ones, against every subsequence
tried, and by hand."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from foundling.core.errors import UserError
from foundling.evaluation.metrics.rouge import Config, lcs_length
from tests.evaluation.metrics import real

RECORDED = json.loads(Path(__file__).with_name("references.json").read_text(encoding="utf-8"))


def figures(references: list[str] | str, answer: str, words: Any = "auto") -> dict[str, float]:
    return Config(words=words).build().score([references], [answer]).figures()


def test_figures_are_those_of_rouge_score() -> None:
    for case in RECORDED["rouge"]:
        found = figures(case["references"], case["answer"], "ascii")
        for name, (precision, recall, f1) in case["figures"].items():
            assert found[name] == pytest.approx(f1, abs=1e-12), case
            if len(case["references"]) == 1:  # of two references with the same F1, rounding chooses theirs
                assert found[f"{name}_precision"] == pytest.approx(precision, abs=1e-12), case
                assert found[f"{name}_recall"] == pytest.approx(recall, abs=1e-12), case


@pytest.mark.skipif(not real.TASKS.is_dir(), reason="the real tasks (../shared/data/tasks) are not here")
def test_figures_of_real_summaries_are_those_of_rouge_score() -> None:
    """With one reference, and with all that people wrote."""
    golds, answers = real.summaries()
    recorded = RECORDED["real"]["dialogsum"]
    assert real.hash_of(golds, answers) == recorded["hash"], "other answers than those that were recorded"
    several = Config().build().score(golds, answers).figures()
    single = Config().build().score([texts[0] for texts in golds], answers).figures()
    for name, three in recorded["single"].items():
        assert several[name] == pytest.approx(recorded["several"][name], abs=1e-12)
        found = [single[f"{name}_precision"], single[f"{name}_recall"], single[name]]
        assert found == pytest.approx(three, abs=1e-12)


def longest_by_trying(one: str, two: str) -> int:
    for length in range(min(len(one), len(two)), 0, -1):
        if set(itertools.combinations(one, length)) & set(itertools.combinations(two, length)):
            return length
    return 0


def test_the_longest_common_subsequence_is_the_longest() -> None:
    chance = random.Random(0)
    for _ in range(300):
        one, two = ("".join(chance.choices("abc", k=chance.randint(0, 8))) for _ in range(2))
        assert lcs_length(one, two) == longest_by_trying(one, two), (one, two)
    assert lcs_length("ab" * 500, "ba" * 500) == 999


def test_by_hand() -> None:
    found = figures("police killed the gunman", "the gunman police killed")
    assert found["rouge1"] == 1
    assert found["rouge2"] == pytest.approx(2 / 3)
    assert found["rougeL"] == pytest.approx(2 / 4)
    found = figures("the cat sat", "the cat sat on the mat")
    assert (found["rougeL_precision"], found["rougeL_recall"]) == pytest.approx((3 / 6, 1))


def test_the_best_of_several_references_counts_for_each_measure() -> None:
    found = figures(["a b c d", "d c b a x"], "d c b a")
    assert (found["rouge1"], found["rouge2"], found["rougeL"]) == pytest.approx((1, 6 / 7, 8 / 9))


def test_chinese_is_compared_by_character() -> None:
    found = figures("今天天气很好", "今天天气不好")
    assert (found["rouge1"], found["rouge2"], found["rougeL"]) == pytest.approx((5 / 6, 3 / 5, 5 / 6))
    assert figures("今天天气很好", "今天天气不好", "ascii")["rouge1"] == 0
    assert figures("用 GPU 训练", "用GPU训练", "any")["rougeL"] == 1


def test_other_scripts_and_accents_are_kept_by_any() -> None:
    assert figures("Кошка сидит", "кошка спит")["rouge1"] == 0.5
    assert figures("größer", "gro er", "ascii")["rouge1"] == pytest.approx(2 / 4), "rouge-score's rule cuts it: gr, er"
    assert figures("größer", "gro er", "any")["rouge1"] == 0


def test_what_words_are_is_shown() -> None:
    metric = Config().build()
    assert "a-z" in metric.score(["cat"], ["cat"]).settings
    assert "characters where no spaces stand" in metric.score(["猫"], ["cat"]).settings


def test_an_example_needs_a_reference() -> None:
    with pytest.raises(UserError, match="a gold must have a text to compare with; got none"):
        Config().build().score([["a"], []], ["a", "a"])
