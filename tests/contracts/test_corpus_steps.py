"""What every step of the corpus keeps to; a new step file is tried here unasked."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest

from foundling.core.config import PartConfig
from foundling.core.files import write_manifest
from foundling.core.registry import load_part, part_names
from foundling.corpus.document import Document, Drop
from foundling.corpus.linear import KIND as CLASSIFIER
from foundling.corpus.linear import Features, LinearModel
from foundling.corpus.steps.base import CorpusStep, DocumentStep, SurveyStep

STEPS = part_names("corpus.steps")
CLEAN = [
    "The harbour lay quiet in the morning light, and the fishermen were mending their nets on the quay.\n\n"
    "“Will it hold?” she asked. “It held last year,” said the old man, “and the year before that.”",
    "def add(a: int, b: int) -> int:\n\treturn a + b  # two spaces, one tab: kept\n",
    "Die Straße führt über die Brücke zum alten Rathaus, das größer ist, als man denkt.",
    "海上生明月，天涯共此時。\n情人怨遙夜，竟夕起相思。\n滅燭憐光滿，披衣覺露滋。\n不堪盈手贈，還寢夢佳期。",
]
DIRTY = ["", " \n", "a", "x\x00y\r\nz", "e\u0301", *CLEAN, CLEAN[0], "\ufffd" * 50, "word " * 5000]


def document(text: str, number: int = 0) -> Document:
    return Document(id=f"made/{number}.txt", text=text, source="made", domain="made", meta={"kept": [1]})


@cache
def needed(kind: str) -> dict[str, Any]:
    """Settings that a step cannot do without."""
    if kind == "classifier":
        folder = Path(mkdtemp())
        features = Features(1024, 2, 3, 1000)
        LinearModel(features, ["bad", "good"], np.zeros((1024, 2), np.float32), np.zeros(2, np.float32)).save(folder)
        settings = {"labels": ["bad", "good"], "features": vars(features)}
        write_manifest(folder, CLASSIFIER, settings=settings, inputs={}, counts={})
        return {"path": folder, "keep": "good"}
    return {}


def step(kind: str) -> Any:
    return load_part("corpus.steps", kind).Config(kind=kind, **needed(kind)).build()


def answers(kind: str, texts: list[str]) -> list[Document | Drop]:
    """What one step says to documents in order; a document that a CorpusStep admits stands for itself."""
    built = step(kind)
    made = [document(text, number) for number, text in enumerate(texts)]
    if isinstance(built, CorpusStep):
        return [built.admit(built.signature(one)) or one for one in made]
    if isinstance(built, SurveyStep):
        built.survey(built.signature(one) for one in made)
        return [built.decide(number, one) for number, one in enumerate(made)]
    return [built.apply(one) for one in made]


@pytest.mark.parametrize("kind", STEPS)
def test_the_file_holds_a_part_and_its_reasons(kind: str) -> None:
    part = load_part("corpus.steps", kind)
    assert issubclass(part.Config, PartConfig)
    assert part.__doc__
    assert part.Config.__doc__
    assert sum(isinstance(step(kind), what) for what in (DocumentStep, CorpusStep, SurveyStep)) == 1
    for name, field in part.Config.model_fields.items():
        assert field.description, f"{kind}.{name} has no docstring"
    for reason, meaning in part.REASONS.items():
        assert reason == reason.lower().replace(" ", "_")
        assert len(meaning.split()) > 3, f"{reason} must say what is true of the document"


@pytest.mark.parametrize("kind", STEPS)
def test_every_drop_has_a_documented_reason(kind: str) -> None:
    reasons = {answer.reason for answer in answers(kind, DIRTY) if isinstance(answer, Drop)}
    assert reasons <= set(load_part("corpus.steps", kind).REASONS)


@pytest.mark.parametrize("kind", STEPS)
def test_what_is_told_is_plain_data(kind: str) -> None:
    for answer in answers(kind, DIRTY):
        if isinstance(answer, Drop):
            assert answer.detail is None or len(answer.detail) <= 200
        else:
            assert all(isinstance(count, int) and count > 0 for count in answer.found.values())
    built = step(kind)
    if hasattr(built, "summary"):
        assert json.loads(json.dumps(built.summary())) == built.summary()


@pytest.mark.parametrize("kind", STEPS)
def test_deterministic(kind: str) -> None:
    assert answers(kind, DIRTY) == answers(kind, DIRTY)


@pytest.mark.parametrize("kind", STEPS)
def test_clean_text_stays_as_it_is(kind: str) -> None:
    for given, answer in zip(CLEAN, answers(kind, CLEAN), strict=True):
        assert isinstance(answer, Document), f"{kind} took {given!r}"
        assert answer.text == given
        assert answer.id.startswith("made/")
        assert answer.meta["kept"] == [1]


@pytest.mark.parametrize("kind", STEPS)
def test_a_second_time_changes_nothing(kind: str) -> None:
    built = step(kind)
    if not isinstance(built, DocumentStep):
        return
    for text in DIRTY:
        once = built.apply(document(text))
        if isinstance(once, Document):
            assert built.apply(once) == once
