"""BLEU and chrF against sacrebleu's own corpus scores and signatures, of made texts and of real ones."""

import random
from typing import Any

import numpy as np
import pytest
import sacrebleu

from foundling.core.errors import UserError
from foundling.evaluation.metrics.bleu import Config as Bleu
from foundling.evaluation.metrics.chrf import Config as Chrf
from tests.evaluation.metrics import real

TEXT = "Ein Mann schläft in einem grünen Raum auf einem Sofa, und ein Hund - groß - wacht; 3.5 Stunden."
WORDS = TEXT.split()


def draw(seed: int, num_references: int) -> tuple[list[list[str]], list[str]]:
    chance = random.Random(seed)
    golds, said = [], []
    for _ in range(12):
        words = chance.choices(WORDS, k=chance.randint(4, 15))
        vary = lambda share, words=words: " ".join(
            w if chance.random() < share else chance.choice(WORDS) for w in words
        )
        golds.append([vary(0.8) for _ in range(num_references)])
        said.append(vary(0.7))
    return golds, said


def streams(golds: list[list[str]]) -> list[Any]:
    return [[texts[at] for texts in golds] for at in range(len(golds[0]))]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_references", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"lowercase": True}])
def test_figures_and_signature_are_those_of_sacrebleu(seed: int, num_references: int, settings: Any) -> None:
    golds, said = draw(seed, num_references)
    bleu, chrf = sacrebleu.BLEU(**settings), sacrebleu.CHRF(word_order=2, **settings)
    wanted = bleu.corpus_score(said, streams(golds))
    found = Bleu(**settings).build().score(golds, said)
    assert found.figures() == {"bleu": wanted.score, "brevity_penalty": wanted.bp}
    assert found.settings == f"BLEU|{bleu.get_signature()} (sacrebleu)"
    assert found.settings.replace(f"nrefs:{num_references}|", "") == Bleu(tokenize="13a", **settings).build().settings
    assert f"nrefs:{num_references}|" in found.settings
    wanted = chrf.corpus_score(said, streams(golds))
    found = Chrf(word_order=2, **settings).build().score(golds, said)
    assert found.figures() == {"chrf": wanted.score}
    assert found.settings == f"{wanted.name}|{chrf.get_signature()} (sacrebleu)"
    assert found.settings.replace(f"nrefs:{num_references}|", "") == Chrf(word_order=2, **settings).build().settings
    index = np.random.default_rng(seed).integers(12, size=12)
    again = bleu.corpus_score([said[i] for i in index], streams([golds[i] for i in index]))
    assert Bleu(**settings).build().score(golds, said).figures(index)["bleu"] == again.score


@pytest.mark.skipif(not real.TASKS.is_dir(), reason="the real tasks (../shared/data/tasks) are not here")
def test_figures_of_real_translations_are_those_of_sacrebleu() -> None:
    golds, said = real.translations()
    wanted = sacrebleu.BLEU().corpus_score(said, [golds])
    assert 20 < wanted.score < 90, "neither all right nor all wrong"
    assert Bleu().build().score(golds, said).figures() == {"bleu": wanted.score, "brevity_penalty": wanted.bp}
    assert Chrf().build().score(golds, said).figures() == {"chrf": sacrebleu.CHRF().corpus_score(said, [golds]).score}


def test_examples_may_have_more_references_than_others() -> None:
    golds, said = draw(0, 2)
    fewer = [texts[: 1 + number % 2] for number, texts in enumerate(golds)]
    padded = [[*texts, None][:2] for texts in fewer]
    for config, oracle in ((Bleu(), sacrebleu.BLEU()), (Chrf(), sacrebleu.CHRF())):
        scored = config.build().score(fewer, said)
        wanted = oracle.corpus_score(said, streams(padded))  # type: ignore[arg-type]
        assert scored.figures()[config.build().best] == wanted.score
        assert "nrefs:var|" in scored.settings


def test_a_single_reference_needs_no_list() -> None:
    golds, said = draw(0, 1)
    assert (
        Bleu().build().score([text for (text,) in golds], said).figures() == Bleu().build().score(golds, said).figures()
    )


def test_chinese_is_cut_into_characters() -> None:
    golds, said = ["今天天气很好，我们去公园。"], ["今天天气很好，我们去学校。"]
    scored = Bleu().build().score(golds, said)
    assert "tok:zh|" in scored.settings
    assert scored.figures()["bleu"] == sacrebleu.BLEU(tokenize="zh").corpus_score(said, [golds]).score > 50
    assert "tok:13a|" in Bleu(tokenize="13a").build().score(golds, said).settings
    for text in ("私は東京タワーに行きたいです", "ฉันอยากไปกรุงเทพพรุ่งนี้"):
        assert "tok:char|" in Bleu().build().score([[text]], [text]).settings


def test_a_short_answer_pays_for_it() -> None:
    golds, said = draw(1, 1)
    figures = Bleu().build().score(golds, [" ".join(text.split()[:-2]) for text in said]).figures()
    assert figures["brevity_penalty"] < 1


def test_an_empty_answer_is_an_answer() -> None:
    assert Bleu().build().score(["a b c d e"], [""]).figures()["bleu"] == 0
    assert Chrf().build().score(["a b c d e"], [""]).figures()["chrf"] == 0


def test_an_example_needs_a_reference() -> None:
    for config in (Bleu(), Chrf()):
        with pytest.raises(UserError, match="a gold must have a text to compare with; got none"):
            config.build().score([["a"], []], ["a", "a"])
