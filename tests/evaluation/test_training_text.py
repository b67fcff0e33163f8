"""Texts that a run was trained on are found again in its token stores, and told beside the figures."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from foundling.core.errors import UserError
from foundling.data.store import build_store
from foundling.evaluation.suites.perplexity import Config as Perplexity
from foundling.evaluation.suites.pseudo_perplexity import Config as Pseudo
from foundling.evaluation.training_text import SHORTEST, count_seen, training_streams
from tests.evaluation.test_likelihood import VOCAB
from tests.evaluation.test_suites import subject, words
from tests.tiny import FIRST_ORDINARY, ArrayStream, tiny_tokenizer

TOKENIZER = tiny_tokenizer(VOCAB)
TRAINED = [words(SHORTEST + i % 3, seed=i) for i in range(12)]
HELD_BACK = [words(SHORTEST, seed=100 + i) for i in range(4)]


@dataclass(frozen=True)
class Text:
    text: str
    source: str = "made"


@dataclass(frozen=True)
class Made:
    key: str = "k"

    def documents(self, split: str) -> Iterator[Text]:
        yield from map(Text, TRAINED if split == "train" else HELD_BACK)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two stores; what it was validated on lies in `tokens-valid`."""
    for name in ("tokens-0", "tokens-valid"):
        build_store(Made(), TOKENIZER, tmp_path / name, workers=1)
    return tmp_path


def test_whole_documents_of_the_training_split_are_counted(run: Path) -> None:
    streams = training_streams(run, TOKENIZER)
    encoded = [TOKENIZER.encode(text) for text in TRAINED]
    assert count_seen(streams, encoded) == len(TRAINED)
    assert count_seen(streams, (TOKENIZER.encode(text) for text in HELD_BACK)) == 0
    assert count_seen(streams, [encoded[3], encoded[3], encoded[3][:-1], encoded[3][::-1]]) == 2, (
        "each as often as given"
    )


def test_short_texts_recur_by_themselves() -> None:
    ids = np.arange(FIRST_ORDINARY, FIRST_ORDINARY + SHORTEST - 1)
    assert count_seen([ArrayStream(np.append(ids, 0))], [ids]) == 0  # type: ignore[list-item]
    ids = np.append(ids, FIRST_ORDINARY)
    assert count_seen([ArrayStream(np.append(ids, 0))], [ids]) == 1  # type: ignore[list-item]


def test_a_folder_without_stores_and_stores_of_another_tokenizer(run: Path, tmp_path: Path) -> None:
    assert training_streams(tmp_path / "nowhere", TOKENIZER) == []
    with pytest.raises(UserError, match="tokenizer"):
        training_streams(run, tiny_tokenizer(VOCAB + 1))


@pytest.mark.parametrize(("family", "suite"), [("gpt", Perplexity()), ("bert", Pseudo())])
def test_suites_tell_them(family: str, suite: Perplexity | Pseudo, run: Path) -> None:
    scored = run / "texts.jsonl"
    scored.write_text("".join(f'{{"text": "{text}"}}\n' for text in (*HELD_BACK, TRAINED[5])), encoding="utf-8")
    plain = subject(family)
    assert "texts_trained_on" not in suite.build().run(plain, [scored]).figures
    report = suite.build().run(replace(plain, trained_on=training_streams(run, TOKENIZER)), [scored])
    assert report.figures["texts_trained_on"] == 1
    assert report.notes[0].startswith("1 text is, word for word, in what the run was trained on")
    scored.write_text(f'{{"text": "{HELD_BACK[0]}"}}\n', encoding="utf-8")
    report = suite.build().run(replace(plain, trained_on=training_streams(run, TOKENIZER)), [scored])
    assert (report.figures["texts_trained_on"], report.notes) == (0, ())
