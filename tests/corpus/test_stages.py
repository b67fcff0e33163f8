"""What steps of the three kinds see, and what the manifest tells of them."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foundling.core.config import PartConfig, validate
from foundling.core.errors import UserError
from foundling.corpus.build import Config, build_corpus
from foundling.corpus.folder import Corpus
from foundling.corpus.notes import EXCERPT_CHARACTERS, excerpts
from foundling.corpus.scripts import words_of
from foundling.corpus.shards import dropped_rows
from foundling.corpus.steps import length
from tests.corpus.made_steps import FirstConfig, MaskConfig, RareConfig


def made_texts(num: int = 400) -> list[str]:
    rng = random.Random(1)
    return [
        " ".join(["some words"] * rng.randint(1, 4) + [f"w{min(int(rng.expovariate(0.03)), 99)}"]) for _ in range(num)
    ]


def built(folder: Path, steps: list[PartConfig], texts: list[str], **values: Any) -> Corpus:
    folder.mkdir(exist_ok=True)
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return build_corpus([path], folder / "out", Config(**{"steps": steps, "workers": 1, "valid_fraction": 0, **values}))


def texts_of(corpus: Corpus) -> list[str]:
    return [document.text for document in corpus.documents()]


def rare(texts: list[str]) -> list[str]:
    """What `Rare` leaves, said another way."""
    counts = Counter(text.split()[-1] for text in texts)
    kept = [(text, counts[text.split()[-1]]) for text in texts if counts[text.split()[-1]] > 1]
    return [f"{text} x{count}" if count % 2 else text for text, count in kept]


def first(texts: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    kept = []
    for text in texts:
        seen[text.split()[-1]] += 1
        if seen[text.split()[-1]] <= 3:
            kept.append(text)
    return kept


LONG = length.Config(kind="length", min_characters=20)


@pytest.mark.parametrize("batch_rows", [7, 4096])
@pytest.mark.parametrize(
    "order", ["survey", "length survey", "survey length", "survey survey", "survey first", "first length survey"]
)
def test_a_survey_knows_all_before_it_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, batch_rows: int
) -> None:
    monkeypatch.setattr("foundling.corpus.rows.BATCH_ROWS", batch_rows)
    wanted = given = made_texts()
    steps: list[PartConfig] = []
    for name in order.split():
        if name == "survey":
            steps, wanted = [*steps, RareConfig()], rare(wanted)
        elif name == "first":
            steps, wanted = [*steps, FirstConfig()], first(wanted)
        else:
            steps, wanted = [*steps, LONG], [text for text in wanted if len(text) >= 20]
    corpus = built(tmp_path, steps, given)
    assert texts_of(corpus) == wanted
    counts = corpus.manifest["counts"]
    assert [step["step"] for step in counts["steps"]] == [step.kind for step in steps]
    assert counts["steps"][-1]["num_documents"] == len(wanted)
    assert counts["num_words_read"] == counts["steps"][0]["num_words_in"] == sum(len(words_of(text)) for text in given)
    num_words = sum(len(words_of(text)) for text in wanted)
    assert counts["steps"][-1]["num_words"] == counts["num_words"] == num_words
    assert counts["splits"]["train"]["num_words"] == counts["sources"]["a"]["num_words"] == num_words
    assert counts["num_bytes"] == sum(len(text) for text in wanted)
    for before, after in zip(counts["steps"], counts["steps"][1:], strict=False):
        assert (before["num_documents"], before["num_bytes"]) == (after["num_documents_in"], after["num_bytes_in"])
    dropped = Counter((row["step"], row["reason"]) for row in dropped_rows(corpus.dir))
    told = {(step["step"], reason): n for step in counts["steps"] for reason, n in step["dropped"].items()}
    if order != "survey survey":
        assert dropped == told
    assert sum(dropped.values()) == len(given) - len(wanted)


def test_what_steps_did_is_told(tmp_path: Path) -> None:
    texts = [f"call {i} now" if i % 3 == 0 else "call nobody" for i in range(60)] + ["alone"]
    corpus = built(tmp_path, [MaskConfig(), LONG.model_copy(update={"min_characters": 6}), RareConfig()], texts)
    mask, long, rare = corpus.manifest["counts"]["steps"]
    assert (mask["num_changed"], mask["found"]) == (20, {"digits": sum(len(str(i)) for i in range(0, 60, 3))})
    assert len(mask["changes"]) == 10
    by_id = {f"a.jsonl:{number}": text for number, text in enumerate(texts, 1)}
    for change in mask["changes"]:
        assert change["before"] == by_id[change["id"]]
        assert change["after"] == "call " + "#" * len(change["before"].split()[1]) + " now"
    assert (long["num_changed"], long["found"], long["changes"]) == (0, {}, []), "found is told by its own step alone"
    assert long["dropped"] == {"too_short": 1}
    assert long["examples"]["too_short"][0]["sample"] == "alone"
    assert rare["summary"] == {"most": 40}
    assert rare["found"] == ({"marks": rare["num_changed"]} if rare["num_changed"] else {})


def test_a_drop_keeps_the_figure_that_decided(tmp_path: Path) -> None:
    corpus = built(tmp_path, [RareConfig(), FirstConfig()], ["a x", "b x", "c y", "d x", "e x"])
    rows = {row["id"]: (row["step"], row["reason"], row["detail"]) for row in dropped_rows(corpus.dir)}
    assert rows == {"a.jsonl:3": ("rare", "rare", "2 stands alone"), "a.jsonl:5": ("first", "fourth", "number 4")}


def test_examples_do_not_depend_on_batches_or_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text {i} of words" for i in range(500)]
    steps: list[PartConfig] = [MaskConfig(), FirstConfig()]
    whole = built(tmp_path / "one", steps, texts).manifest["counts"]
    monkeypatch.setattr("foundling.corpus.rows.BATCH_ROWS", 13)
    assert built(tmp_path / "two", steps, texts, workers=2).manifest["counts"] == whole
    numbers = sorted(int(change["id"].split(":")[1]) for change in whole["steps"][0]["changes"])
    assert numbers[-1] - numbers[0] > 100, "spread, not the first ones"


def test_excerpts_stand_around_the_first_difference() -> None:
    assert excerpts("abc", "abd") == ("abc", "abd")
    assert excerpts("abc", "abcd") == ("abc", "abcd")
    assert excerpts("", "x") == ("", "x")
    before, after = excerpts("a" * 1000 + "X" + "b" * 1000, "a" * 1000 + "b" * 1000)
    assert before[0] == before[-1] == after[0] == after[-1] == "…"
    assert before.index("X") == after.index("b") == 61
    assert len(before) == EXCERPT_CHARACTERS + 2


def test_all_dropped_before_later_segments(tmp_path: Path) -> None:
    steps: list[PartConfig] = [LONG.model_copy(update={"min_characters": 999}), RareConfig(), FirstConfig()]
    for workers in (1, 2):
        with pytest.raises(UserError, match=r"3 read, none left: length took 3 \(too_short 3\)"):
            built(tmp_path / str(workers), steps, ["a", "b", "c"], workers=workers)
        assert [path.name for path in (tmp_path / str(workers)).iterdir()] == ["a.jsonl"]


def test_presets() -> None:
    assert [step.kind for step in validate(Config, {"steps": "plain"}, "corpus").steps] == [
        "unicode",
        "length",
        "exact",
    ]
    assert validate(Config, {"steps": "crawl"}, "corpus") == Config()
    with pytest.raises(UserError, match=r"steps: must be a list of steps or one of plain, crawl; did you mean 'crawl'"):
        validate(Config, {"steps": "craw"}, "corpus")
