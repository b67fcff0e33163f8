"""Near duplicates: what is found, who stays, what is told; the clusters against a plain reference."""

import itertools
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.corpus import clusters as module
from foundling.corpus.build import Config, build_corpus
from foundling.corpus.clusters import agreement, candidates, clusters, groups
from foundling.corpus.document import Document, Drop
from foundling.corpus.minhash import places_for
from foundling.corpus.shards import dropped_rows
from foundling.corpus.steps import near
from foundling.corpus.steps.base import SurveyStep

DIRTY = Path(__file__).parents[3] / "shared" / "data" / "corpora" / "dirty.jsonl"
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"]


def made(text: str, name: str = "a") -> Document:
    return Document(id=name, text=text, source="s", domain="d", meta={"page": 1})


def words(seed: int, count: int = 120) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=count)


def answers(texts: list[str], **settings: Any) -> tuple[list[Document | Drop], near.Near]:
    step = near.Config(kind="near", **settings).build()
    documents = [made(text, f"d{number}") for number, text in enumerate(texts)]
    step.survey(iter([step.signature(document) for document in documents]))
    return [step.decide(number, document) for number, document in enumerate(documents)], step


def dropped(given: list[Document | Drop]) -> list[int]:
    return [number for number, answer in enumerate(given) if isinstance(answer, Drop)]


def test_a_few_changed_words_are_found_and_told() -> None:
    one, two = words(1), words(2)
    changed = one.copy()
    changed[10] = changed[70] = "CHANGED"
    given, step = answers([" ".join(one), " ".join(two), " ".join(changed).upper() + "!"])
    assert isinstance(step, SurveyStep)
    assert dropped(given) == [2]
    drop = given[2]
    assert isinstance(drop, Drop)
    assert drop.reason == "near_duplicate"
    assert drop.detail is not None
    assert drop.detail.startswith("like d0, Jaccard about 0.9")
    assert isinstance(given[0], Document)
    assert given[0].meta == {"page": 1, "duplicates": 1}
    assert given[1] == made(" ".join(two), "d1")


def test_characters_where_the_script_has_no_spaces() -> None:
    text = "海上生明月天涯共此時情人怨遙夜竟夕起相思滅燭憐光滿披衣覺露滋不堪盈手贈還寢夢佳期白日依山盡黃河入海流"
    other = "國破山河在城春草木深感時花濺淚恨別鳥驚心烽火連三月家書抵萬金白頭搔更短渾欲不勝簪"
    given, _ = answers([text, other, text.replace("明月", "月明").replace("光", "，")])
    assert dropped(given) == [2]
    assert dropped(answers([text, other, text[::-1]])[0]) == []
    assert dropped(answers([text, other, text[::-1]], shingle_characters=1)[0]) == [2]


def test_short_rows_and_empty_texts() -> None:
    given, _ = answers(["", "yes", "Yes!", "no", "", "!?", "good morning", "good evening", "Good morning."])
    assert dropped(given) == [2, 8]


def test_the_longest_may_stay() -> None:
    base = words(3)
    texts = [" ".join(base), " ".join([*base, "one", "more"]), " ".join(base[:-2])]
    given, _ = answers(texts, keep="longest")
    assert dropped(given) == [0, 2]
    given, _ = answers(texts)
    assert dropped(given) == [1, 2]


def test_links_join_to_clusters_unless_told_otherwise() -> None:
    """A text slides along: each is near to the next, the first and the last share nothing."""
    long = words(4, 260)
    texts = [" ".join(long[start : start + 130]) for start in range(0, 131, 10)]
    given, step = answers(texts)
    assert dropped(given) == list(range(1, len(texts)))
    last = given[-1]
    assert isinstance(last, Drop)
    assert last.detail == "like d0, Jaccard about 0.00, through others"
    assert step.summary()["largest_clusters"][0]["num_duplicates"] == len(texts) - 1
    given, step = answers(texts, chained=False)
    assert 2 < len(dropped(given)) < len(texts) - 2
    for number in dropped(given):
        drop = given[number]
        assert isinstance(drop, Drop)
        assert drop.detail is not None
        assert float(drop.detail.split()[-1]) >= round(step.check, 2)


def test_what_passes_the_check() -> None:
    one, two = words(10, 40), words(11, 40)
    texts = [" ".join(one + two), " ".join(one + words(12, 40))]  # J is about a third
    always = {"bands": 128, "rows": 1}
    assert dropped(answers(texts, check=0, **always)[0]) == [1]
    assert dropped(answers(texts, **always)[0]) == []
    assert near.Config(kind="near").build().check == pytest.approx(0.75 - 2.33 * (0.75 * 0.25 / 256) ** 0.5)


def test_summary_tells_the_largest_clusters_first() -> None:
    one, two, three = (" ".join(words(seed)) for seed in (5, 6, 7))
    _, step = answers([one, two, two + " end", three, one + " x", two + " fin", one])
    summary = step.summary()
    assert (summary["num_clusters"], summary["num_duplicates"]) == (2, 4)
    assert [cluster["kept"] for cluster in summary["largest_clusters"]] == ["d0", "d1"]
    assert summary["largest_clusters"][0]["examples"] == ["d4", "d6"]
    assert summary["largest_clusters"][0]["sample"] == one[:240]


def test_clusters_are_the_components_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every pair; a small window forces the way of crowded bands."""
    rng = np.random.default_rng(0)
    bands, rows, threshold = 5, 2, 0.5
    for window, values in ((64, 12), (64, 3), (2, 40)):
        monkeypatch.setattr(module, "_WINDOW", window)
        signatures = rng.integers(0, values, (150, bands * rows)).astype(np.uint16)
        signatures[100:] = signatures[:50]
        signatures[100:, 0] += 7
        numbers = np.flatnonzero(rng.random(150) < 0.9)
        roots = clusters(signatures, numbers, bands, rows, threshold)
        wanted = np.arange(150)
        for a, b in itertools.combinations(numbers.tolist(), 2):
            equal = signatures[a] == signatures[b]
            if equal.reshape(bands, rows).all(axis=1).any() and equal.sum() >= places_for(threshold, bands * rows):
                low, high = sorted((wanted[a], wanted[b]))
                wanted[wanted == high] = low
        assert np.array_equal(roots, wanted)
        assert sum(len(group) for group in groups(roots)) == sum(np.sum(roots == root) > 1 for root in roots)
    assert agreement(signatures, np.array([0]), np.array([100])) == bands * rows - 1


def test_in_a_crowded_band_each_is_compared_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW", 2)
    band, numbers = np.zeros((9, 2), np.uint16), np.arange(10, 19)
    pairs = [(int(a), int(b)) for left, right in candidates(band, numbers) for a, b in zip(left, right, strict=True)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(a, b) for a, b in itertools.combinations(range(10, 19), 2) if a == 10 or b - a <= 2}


def test_thousands_of_copies_are_one_cluster() -> None:
    one = " ".join(words(8, 30))
    given, _ = answers([one] * 3000 + [" ".join(words(9, 30))])
    assert dropped(given) == list(range(1, 3000))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bands": 4}, "bands and rows go together"),
        ({"bands": 65, "rows": 4}, r"bands \* rows must be at most num_hashes \(256\)"),
        ({"threshold": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(near.Config, settings, "near")


def test_another_corpus_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must exist"):
        near.Config(kind="near", against=[str(tmp_path / "none")]).input_hashes()


def test_against_another_corpus(tmp_path: Path) -> None:
    one, two, three = (words(seed) for seed in (20, 21, 22))
    near_one = [*one[:50], "CHANGED", *one[51:]]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps({"text": " ".join(text)}) + "\n" for text in (three, one)))
    plain = validate(Config, {"steps": "plain", "workers": 1, "valid_fraction": 0}, "corpus")
    old = build_corpus([tmp_path / "old.jsonl"], tmp_path / "old", plain)
    again = [" ".join(near_one), " ".join(two), " ".join([*two, "end"]), " ".join(near_one[:-1])]
    given, step = answers(again, against=[str(old.dir)])
    assert dropped(given) == [0, 2, 3]
    assert [answer.reason for answer in given if isinstance(answer, Drop)] == [
        "near_duplicate_elsewhere",
        "near_duplicate",
        "near_duplicate_elsewhere",
    ]
    drop = given[0]
    assert isinstance(drop, Drop)
    assert drop.detail is not None
    assert drop.detail.startswith(f"like {old.dir}: old.jsonl:2, Jaccard about 0.9")
    assert step.summary()["num_clusters"] == 1
    assert near.Config(kind="near", against=[str(old.dir)]).input_hashes() == {f"near.against:{old.dir}": old.key}


def test_a_corpus_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    rng = random.Random(0)
    bases = [words(seed, 60) for seed in range(30, 60)]
    rows = []
    for _ in range(400):
        text = rng.choice(bases).copy()
        text[rng.randrange(60)] = rng.choice(VOCABULARY)
        rows.append(" ".join(text) + "\nThe same footer on all of the pages here")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    steps: list[Any] = ["boilerplate", {"kind": "exact", "equality": "normalised"}, "near"]
    built = [
        build_corpus(
            [tmp_path / "in.jsonl"],
            tmp_path / f"out{workers}",
            validate(Config, {"steps": steps, "workers": workers, "valid_fraction": 0}, "corpus"),
        )
        for workers in (1, 2)
    ]
    first, second = (list(corpus.documents()) for corpus in built)
    assert first == second
    assert len(first) == 30
    assert sum(document.meta.get("duplicates", 0) for document in first) + 30 <= 400
    assert not any("footer" in document.text for document in first)


@pytest.mark.skipif(not DIRTY.is_file(), reason="the real corpora (../shared/data/corpora) are not here")
def test_duplicates_of_a_small_crawl(tmp_path: Path) -> None:
    steps: list[Any] = ["furniture", {"kind": "exact", "equality": "normalised"}, "near"]
    corpus = build_corpus([DIRTY], tmp_path / "out", validate(Config, {"steps": steps, "workers": 1}, "corpus"))
    rows = {}
    for number, line in enumerate(DIRTY.read_text(encoding="utf-8").split("\n"), start=1):
        with suppress(ValueError):
            rows[f"dirty.jsonl:{number}"] = json.loads(line)
    names = {row["id"]: name for name, row in rows.items()}
    for kind, reason in (("near_duplicate", "near_duplicate"), ("exact_duplicate", "duplicate")):
        wanted = {name: names[row["dup_of"]] for name, row in rows.items() if row["kind"] == kind}
        got = {row["id"]: row["detail"] for row in dropped_rows(corpus.dir, reason) if rows[row["id"]]["text"].strip()}
        assert wanted.keys() == got.keys()
        assert all(f" {wanted[name]}" in detail for name, detail in got.items())
