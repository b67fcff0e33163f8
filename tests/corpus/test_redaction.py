"""What was masked in the documents stands nowhere else in a corpus folder."""

import json
from pathlib import Path

import pytest

from foundling.corpus.build import build_corpus
from foundling.corpus.document import Document, Drop
from foundling.corpus.redaction import Redactor
from foundling.corpus.segment import shown
from foundling.corpus.settings import read_settings
from foundling.corpus.shards import dropped_rows
from foundling.corpus.steps import privacy

STEPS = [privacy.Config(kind="privacy")]
PERSONAL = ("li.wei@example.org", "+49 30 901820", "4111 1111 1111 1111", "192.0.2.47")


def test_shown_is_as_long_and_says_what_kind_of_thing_it_was() -> None:
    redactor = Redactor(STEPS)
    text = "Write to li.wei@example.org, or call +49 30 901820 (www.example.org)."
    assert redactor.shown(text) == "Write to ••.•••@•••••••.•••, or call +•• •• •••••• (www.example.org)."
    assert Redactor().shown(text, 3, 7) == text[3:7]


@pytest.mark.parametrize("personal", PERSONAL)
def test_what_an_end_cuts_is_found(personal: str) -> None:
    text = "word " * 30 + personal + " word" * 30
    whole = Redactor(STEPS).shown(text)
    assert personal not in whole
    for start in range(130, 180, 3):
        assert Redactor(STEPS).shown(text, start, start + 20) == whole[start : start + 20]


@pytest.mark.parametrize(
    "veiled",
    [
        "li.wei&#64;example.org",
        "li.wei@<b>example</b>.org",
        "0171&nbsp;1234567",
        "li.wei\u200b@example.org",
        "１３８-００１３-８０００",
        "4111&#x20;1111 1111&#32;1111",
    ],
)
def test_what_other_steps_unveil_is_hidden_before(veiled: str) -> None:
    text = f"<p>Fish &amp; chips: {veiled} and more"
    found = Redactor(STEPS).shown(text)
    assert len(found) == len(text)
    assert found.startswith("<p>Fish &amp; chips: ")
    assert found.endswith(" and more")
    assert not any(part in found for part in ("li", "wei", "017", "123", "１３８", "4111"))


def test_what_is_kept_is_shown() -> None:
    redactor = Redactor([privacy.Config(kind="privacy", email="keep", url="drop")])
    assert redactor.shown("a@example.org www.example.org") == "a@example.org •••.•••••••.•••"


def test_details_of_drops() -> None:
    drop, sample = shown(Drop("x", "holds a@example.org"), Document("i", "b@example.org", "", ""), Redactor(STEPS))
    assert (drop.detail, sample) == ("holds •@•••••••.•••", "•@•••••••.•••")


@pytest.mark.parametrize("workers", [1, 2])
def test_no_artefact_holds_what_was_masked(tmp_path: Path, workers: int) -> None:
    """Steps before privacy change and drop texts, steps after drop them as duplicates and as too short."""
    personal = ", ".join(PERSONAL)
    prose = "This page tells how a letter finds its way from a farm to a city, and who reads it on the way.\n" * 3
    texts = [
        *(f"<html><body><p>Call {personal}</p><p>{prose} {i}</p></body></html>" for i in range(4)),
        *(f"Caf\u00c3\u00a9 {personal} \u0000 and \u200b {prose}{i}" for i in range(4)),
        *(f"{personal} short" for _ in range(3)),
        *(f"{personal}\n\n\n\n  {prose.replace('farm', 'mill')}" for _ in range(3)),
        *(("buy now\n" * 30 + personal) for _ in range(2)),
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = read_settings([f"workers={workers}", "steps.length.min_characters=200"])
    corpus = build_corpus([tmp_path / "in.jsonl"], tmp_path / "out", config)
    steps = {step["step"]: step for step in corpus.manifest["counts"]["steps"]}
    assert steps["privacy"]["num_changed"]
    assert steps["html"]["changes"]
    assert "•" in json.dumps(steps["privacy"]["changes"][0]["before"], ensure_ascii=False)
    assert "<EMAIL>" in steps["privacy"]["changes"][0]["after"]
    rows = list(dropped_rows(corpus.dir))
    assert rows
    told = (corpus.dir / "manifest.json").read_text() + (corpus.dir / "report.html").read_text() + json.dumps(rows)
    told += "".join(document.text for document in corpus.documents())
    for string in (*PERSONAL, "li.wei", "901820", "4111", "192.0.2"):
        assert string not in told, string
