"""Suites on tiny models of each family: minimal pairs, pseudo-perplexity, the n-gram baseline beside."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from foundling.core.errors import UserError
from foundling.core.registry import load_part, part_names
from foundling.evaluation.likelihood import log_likelihoods
from foundling.evaluation.ngram import Ngram
from foundling.evaluation.suites.base import FOLDER, Subject
from foundling.evaluation.suites.minimal_pairs import Config as Pairs
from foundling.evaluation.suites.perplexity import Config as Perplexity
from foundling.evaluation.suites.pseudo_perplexity import Config as Pseudo
from foundling.evaluation.versus import versus
from foundling.tokenizers.base import SpecialTokens, Tokenizer
from tests.evaluation.test_likelihood import FAMILIES, VOCAB, parts
from tests.tiny import END, FIRST_ORDINARY, SPECIAL, tiny_tokenizer


def subject(family: str, baseline: Ngram | None = None) -> Subject:
    model, objective = parts(family)
    return Subject(model, tiny_tokenizer(VOCAB), 16, objective, objective.predicts_text, baseline)


def words(number: int, seed: int) -> str:
    return " ".join(f"w{i}" for i in np.random.default_rng(seed).integers(FIRST_ORDINARY, VOCAB, number))


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl.gz"
    rows = [
        {"sentence_good": words(5, i), "sentence_bad": words(5, 100 + i), "UID": f"kind{i % 3}", "linguistics_term": t}
        for i, t in enumerate(["island", "binding"] * 6)
    ]
    with gzip.open(path, "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pair_is_a_hit_where_the_good_sentence_is_more_likely(family: str, pairs: Path) -> None:
    one = subject(family)
    report = Pairs().build().run(one, [pairs])
    hits = 0
    for row in read(pairs):
        texts = [one.tokenizer.encode(row[key]) for key in ("sentence_good", "sentence_bad")]
        good, bad = log_likelihoods(one.model, one.need_scorer(), texts, max_positions=16)
        hits += int(good > bad)
    assert report.figures["accuracy"] == pytest.approx(hits / 12)
    assert report.figures["low"] < report.figures["accuracy"] < report.figures["high"]
    assert [row[0] for row in report.rows] == ["binding", "island", "all"]
    assert report.figures["settings"]["measure"] == ("log-likelihood" if family == "gpt" else "pseudo-log-likelihood")
    groups = report.figures["by_group"]
    assert groups["binding"]["pairs"] + groups["island"]["pairs"] == groups["all"]["pairs"] == 12


def test_pairs_can_be_limited_by_kind_and_grouped_by_it(pairs: Path) -> None:
    report = Pairs(by="UID", limit=2).build().run(subject("gpt"), [pairs])
    assert [row[0] for row in report.rows] == ["kind0", "kind1", "kind2", "all"]
    assert report.figures["pairs"] == 6


def test_an_ngram_model_that_knows_the_good_sentences_wins(pairs: Path) -> None:
    tokenizer = tiny_tokenizer(VOCAB)
    ids = [i for row in read(pairs) for i in (*tokenizer.encode(row["sentence_good"]), END)]
    report = Pairs().build().run(subject("gpt", Ngram.train(np.array(ids), VOCAB, 3)), [pairs])
    assert report.figures["baseline"]["all"]["accuracy"] == 1.0
    assert report.figures["accuracy"] < 1.0


def test_what_is_no_pair_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    for text, told in (
        ('{"sentence_good": "w7 w8"}\n', "line 1 must have sentence_good and sentence_bad; got sentence_good"),
        ('{"sentence_good": "w7", "sentence_bad": "w8"}\nnot json\n', "line 2 must be a JSON object"),
        ("\n", "there must be pairs to score"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=told):
            Pairs().build().run(subject("gpt"), [path])
    with pytest.raises(UserError, match="could not be read"):
        Pairs().build().run(subject("gpt"), [tmp_path / "nowhere.jsonl"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pair_that_cannot_be_scored_is_told_with_its_place(family: str, tmp_path: Path) -> None:
    path, other = tmp_path / "pairs.jsonl", tmp_path / "more.jsonl"
    good = json.dumps({"sentence_good": "w7 w8", "sentence_bad": "w8 w7"}) + "\n"
    path.write_text("\n" + good)
    for text, told in ((words(17, 0), "fit the model's 16 positions; got 1[79] tokens"), (".", "none")):
        other.write_text(good + "\n" + json.dumps({"sentence_good": "w7", "sentence_bad": text}) + "\n")
        one = subject(family)
        if told == "none":
            one = replace(one, tokenizer=deaf_tokenizer())
        with pytest.raises(UserError, match=rf"{told} in .*more.jsonl, line 3, sentence_bad"):
            Pairs().build().run(one, [path, other])


def deaf_tokenizer() -> Tokenizer:
    """The tiny tokenizer, which here drops full stops."""
    raw = tokenizers.Tokenizer.from_str(tiny_tokenizer(VOCAB).json)
    raw.normalizer = tokenizers.normalizers.Replace(".", "")
    return Tokenizer(raw, SpecialTokens(dict(SPECIAL)), kind="wordlevel")


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_pseudo_perplexity_is_that_of_the_first_pieces(family: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(words(40, 1))
    one = subject(family)
    report = Pseudo(row_length=16, tokens=28).build().run(one, [tmp_path / "a.txt"])
    ids = one.tokenizer.encode(words(40, 1))
    likely = log_likelihoods(one.model, one.need_scorer(), [ids[:14], ids[14:28]], max_positions=16).sum()
    assert report.figures["tokens"] == 28
    assert report.figures["pseudo_perplexity"] == pytest.approx(math.exp(-likely / 28), rel=1e-5)
    (tmp_path / "b.txt").write_text(words(40, 2))
    for tokens, scored in ((21, 20), (1, 2), (1000, 80)):
        both = Pseudo(row_length=16, tokens=tokens).build().run(one, [tmp_path / "a.txt", tmp_path / "b.txt"])
        assert both.figures["tokens"] == scored, "as many of each source, at least one"


def test_each_measure_is_of_its_own_kind_of_model(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(words(40, 1))
    with pytest.raises(UserError, match="pseudo-perplexity or --suite minimal-pairs"):
        Perplexity().build().run(subject("bert"), [tmp_path / "a.txt"])
    with pytest.raises(UserError, match="use --suite perplexity"):
        Pseudo().build().run(subject("gpt"), [tmp_path / "a.txt"])


def test_the_baseline_scores_the_same_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(words(90, 1))
    (tmp_path / "b.txt").write_text(words(70, 2))
    tokenizer = tiny_tokenizer(VOCAB)
    ids = np.array(tokenizer.encode(words(3000, 3)))
    report = Perplexity(row_length=16).build().run(subject("gpt", Ngram.train(ids, VOCAB, 2)), [tmp_path])
    assert report.figures["baseline"]["tokens"] == report.figures["tokens"] == 162
    assert report.figures["baseline"]["bytes"] == report.figures["bytes"]
    assert report.figures["baseline"]["perplexity"] == pytest.approx(44, rel=0.2), "the words are drawn evenly"


@pytest.mark.parametrize("kind", part_names(FOLDER))
def test_every_suite_says_what_its_settings_mean(kind: str) -> None:
    assert all(field.description for field in load_part(FOLDER, kind).Config.model_fields.values())


def test_two_models_are_compared_pair_by_pair(pairs: Path) -> None:
    suite = Pairs().build()
    a, b = suite.run(subject("gpt"), [pairs]), suite.run(subject("bert"), [pairs])
    found = versus(a, b).figures["figures"]["accuracy"]
    assert (found["a"], found["b"]) == (a.figures["accuracy"], b.figures["accuracy"])
    assert found["low"] <= found["b"] - found["a"] <= found["high"]
    assert versus(a, a).rows[0][-1] == "noise"


def test_a_damaged_file_of_pairs_is_told(pairs: Path) -> None:
    data = bytearray(pairs.read_bytes())
    data[len(data) // 2] ^= 0xFF
    data[len(data) // 2 + 1] ^= 0xFF
    pairs.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"could not be read|must be a JSON object|must have sentence_good"):
        Pairs().build().run(subject("gpt"), [pairs])


def test_the_baseline_stands_beside_a_pseudo_perplexity_over_the_same_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(words(40, 1))
    tokenizer = tiny_tokenizer(VOCAB)
    ngram = Ngram.train(np.array(tokenizer.encode(words(3000, 3))), VOCAB, 2)
    report = Pseudo(row_length=16).build().run(subject("bert", ngram), [tmp_path / "a.txt"])
    ids = np.array(tokenizer.encode(words(40, 1)))
    expected = math.exp(ngram.losses(ids, [END]).mean())  # pieces change nothing: each goes on where one ended
    assert report.figures["tokens"] == 40
    assert report.figures["baseline"] == {"perplexity": pytest.approx(expected), "order": 2}
    assert [row[0] for row in report.rows] == ["a", "all, 2-gram baseline, a perplexity", "all"]
