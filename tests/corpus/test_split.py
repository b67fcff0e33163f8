"""The split goes by text alone, and no side that is wanted stays empty."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from foundling.core.config import validate
from foundling.corpus.build import Config, build_corpus
from foundling.corpus.folder import Corpus, open_corpus


def built(folder: Path, texts: list[str], **values: Any) -> Corpus:
    folder.mkdir(exist_ok=True)
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    config = validate(Config, {"workers": 1, "steps": "plain", **values}, "corpus")
    return build_corpus([path], folder / "out", config, replace=True)


def sides(corpus: Corpus) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for document in corpus.documents():
        found.setdefault(document.text, set()).add(document.split or "")
    return found


def test_the_share_is_met_and_equal_texts_stand_together(tmp_path: Path) -> None:
    texts = [f"document {i % 2000}" for i in range(4000)]
    corpus = built(tmp_path, texts, steps=[], valid_fraction=0.1)
    assert all(len(found) == 1 for found in sides(corpus).values())
    assert corpus.num_documents() == 4000
    assert 0.08 < corpus.num_documents("valid") / 4000 < 0.12


def test_a_document_keeps_its_side_when_others_come(tmp_path: Path) -> None:
    texts = [f"document {i}" for i in range(500)]
    before = sides(built(tmp_path, texts, valid_fraction=0.2))
    random.Random(0).shuffle(texts)
    after = sides(built(tmp_path, [f"new {i}" for i in range(500)] + texts, valid_fraction=0.2))
    assert {text: after[text] for text in before} == before


def test_the_seed_moves_the_split(tmp_path: Path) -> None:
    texts = [f"document {i}" for i in range(100)]
    one, two = (sides(built(tmp_path, texts, valid_fraction=0.3, seed=seed)) for seed in (0, 1))
    assert one != two


@pytest.mark.parametrize("fraction", [0.0001, 0.9999])
@pytest.mark.parametrize("num_documents", [2, 3, 10])
def test_both_sides_hold_something(tmp_path: Path, num_documents: int, fraction: float) -> None:
    texts = [f"document {i}" for i in range(num_documents)]
    corpus = built(tmp_path, [*texts, texts[0]], valid_fraction=fraction, steps=["unicode"])
    assert set(sides(corpus)) == set(texts)
    assert all(len(found) == 1 for found in sides(corpus).values())
    for split in ("train", "valid"):
        found = [document.text for document in corpus.documents(split)]
        assert found
        assert corpus.num_documents(split) == len(found)
        assert corpus.num_bytes(split) == sum(len(text) for text in found)
        assert corpus.manifest["counts"]["splits"][split]["num_words"] == 2 * len(found)
        assert all(document.split == split for document in corpus.documents(split))
    assert sorted(path.stem for path in (corpus.dir / "documents").iterdir()) == ["train-00000", "valid-00000"]


def test_no_valid_where_none_is_wanted_or_can_be(tmp_path: Path) -> None:
    assert built(tmp_path, ["one", "two"], valid_fraction=0).num_documents("valid") == 0
    assert built(tmp_path, ["one"], valid_fraction=0.5, seed=3).num_documents() == 1
    same = built(tmp_path, ["one", "one"], steps=[], valid_fraction=0.0001)
    assert same.num_documents("train") == 2


def test_the_folder_reads_back(tmp_path: Path) -> None:
    corpus = built(tmp_path, ["one", "two", "three"])
    again = open_corpus(corpus.dir)
    assert list(again.documents()) == list(corpus.documents())
    assert again.manifest["key"] == again.key
