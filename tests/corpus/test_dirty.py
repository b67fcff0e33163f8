"""The steps of `crawl`, together, on a small crawl of which every fault is known."""

from pathlib import Path

import pytest

from benchmarks.dirty import measure, scores
from foundling.corpus.build import Config
from foundling.corpus.settings import read_settings

DIRTY = Path(__file__).parents[3] / "shared" / "data" / "corpora" / "dirty.jsonl"


def test_scores() -> None:
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("clean", "a"), ("clean", "none")]
    assert scores(pairs) == {
        "a": {"documents": 2, "recall": 0.5, "precision": 0.5},
        "b": {"documents": 1, "recall": 1.0, "precision": 0.5},
    }


def test_known_faults() -> None:
    if not DIRTY.exists():
        pytest.skip(f"{DIRTY.name} is not here")
    figures = measure(DIRTY, Config())
    assert figures["malformed_lines_told"] == "[41, 97, 158] of [41, 97, 158]"
    for kind, score in figures["scores"].items():
        assert score["recall"] >= 0.95, kind
        assert score["precision"] >= 0.95, kind
    assert figures["unchanged"] == {"clean": "58 of 58", "chinese": "8 of 8"}, figures["wrong"]
    assert all(language.startswith("zh") for language in figures["languages"]["chinese"])
    for kind, alike in figures["similarity"].items():
        assert alike["least"] >= 0.97, kind
    assert figures["personal_data_masked"] == "20 of 26", "web addresses stay unless they are to go"


def test_all_personal_strings_go() -> None:
    if not DIRTY.exists():
        pytest.skip(f"{DIRTY.name} is not here")
    figures = measure(DIRTY, read_settings(["steps.privacy.url=mask"]))
    assert figures["personal_data_masked"] == "26 of 26"
    assert figures["unchanged"] == {"clean": "58 of 58", "chinese": "8 of 8"}, figures["wrong"]
    assert figures["scores"]["url"] == {"documents": 6, "recall": 1.0, "precision": 1.0}
