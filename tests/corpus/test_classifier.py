"""A classifier learns what its examples show, measures itself honestly, and does as its step is told."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from foundling.cli.corpus import app
from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.corpus.classifier import Config, train_classifier, wilson
from foundling.corpus.document import Document, Drop
from foundling.corpus.linear import Features, LinearModel, fit, load_linear, softmax
from foundling.corpus.steps import classifier
from tests.tiny import CHINESE, ENGLISH

SHARED = Path(__file__).parents[3] / "shared" / "data"
SMALL = Features(1 << 12, 2, 3, 1000)


def texts(letters: list[str] | str, number: int, seed: int, between: str = " ") -> list[str]:
    rng = random.Random(seed)
    return [between.join(rng.choices(letters, k=12)) for _ in range(number)]


@pytest.fixture
def examples(tmp_path: Path) -> dict[str, list[Path]]:
    found = {}
    for label, words in (("good", ENGLISH[:20]), ("bad", ENGLISH[10:])):
        path = tmp_path / f"{label}.jsonl"
        rows = texts(words, 60, len(label)) + texts(CHINESE[:20] if label == "good" else CHINESE[15:], 60, 1, "")
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows), encoding="utf-8")
        found[label] = [path]
    return found


def test_learns_in_both_kinds_of_script(examples: dict[str, list[Path]], tmp_path: Path) -> None:
    manifest = train_classifier(examples, tmp_path / "model", Config(num_buckets=1 << 12))
    counts = manifest["counts"]
    assert counts["accuracy"] > 0.9
    low, high = counts["accuracy_interval"]
    assert low < counts["accuracy"] <= high
    assert counts["num_train"] + counts["num_held_out"] == sum(counts["num_examples"].values()) == 240
    model = load_linear(tmp_path / "model")
    bad, good = model.labels
    assert (bad, good) == ("bad", "good")
    for words, between in ((ENGLISH, " "), (list(CHINESE), "")):
        assert model.probabilities(between.join(words[:9]))[1] > 0.8
        assert model.probabilities(between.join(words[-9:]))[0] > 0.8


def test_the_same_examples_give_the_same_bytes(examples: dict[str, list[Path]], tmp_path: Path) -> None:
    keys = {}
    for name in ("a", "b"):
        train_classifier(examples, tmp_path / name, Config(num_buckets=1 << 12))
        keys[name] = (tmp_path / name / "weights.safetensors").read_bytes()
    assert keys["a"] == keys["b"]


def test_gradient_is_that_of_the_loss() -> None:
    """One step of AdaGrad from zero moves every weight against its gradient, by the whole rate."""
    data = ["one two", "three four", "one three"]
    model = fit(data, [0, 1, 0], ["a", "b"], SMALL, epochs=1, rate=0.5, seed=0)
    buckets, _ = SMALL.of("two", model._words)
    assert model._weight_BC[buckets[0]] == pytest.approx([0.5, -0.5], abs=1e-3)


def test_features() -> None:
    words = LinearModel(SMALL, ["a", "b"], np.zeros((1 << 12, 2), np.float32), np.zeros(2, np.float32))._words
    buckets, values = SMALL.of("Alpha beta alpha", words)
    assert (values**2).sum() == pytest.approx(1)
    assert len(buckets) == 4  # alpha, beta, alpha beta, beta alpha
    assert len(SMALL.of("春眠不觉", words)[0]) == 4 + 3 + 2
    assert len(SMALL.of("", words)[0]) == 0
    assert softmax(np.array([1e4, 0.0])) == pytest.approx([1.0, 0.0])


def test_interval_against_published_values() -> None:
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def step(path: Path, **settings: Any) -> Any:
    return validate(classifier.Config, {"kind": "classifier", "path": path, **settings}, "step").build()


def test_step_keeps_and_tags(examples: dict[str, list[Path]], tmp_path: Path) -> None:
    path = tmp_path / "model"
    train_classifier(examples, path, Config(num_buckets=1 << 12))
    good = Document(id="a", text=" ".join(ENGLISH[:9]), source="s", domain="d")
    bad = Document(id="b", text=" ".join(ENGLISH[-9:]), source="s", domain="d")
    keep = step(path, keep="good")
    assert keep.apply(good) == good
    dropped = keep.apply(bad)
    assert isinstance(dropped, Drop)
    assert "most likely bad" in str(dropped.detail)
    assert step(path, keep=["good", "bad"]).apply(bad) == bad
    assert step(path, tag="domain").apply(bad).domain == "bad"
    assert step(path, tag="meta").apply(good).meta["classifier"]["label"] == "good"
    with pytest.raises(UserError, match="must name labels"):
        step(path, keep="gud")
    with pytest.raises(UserError, match="something to do"):
        step(path)
    with pytest.raises(UserError, match="not a folder"):
        step(tmp_path / "none", keep="good")


def test_command(examples: dict[str, list[Path]], tmp_path: Path) -> None:
    pairs = [f"{label}={paths[0]}" for label, paths in examples.items()]
    out = str(tmp_path / "model")
    arguments = ["classifier", "train", *(a for pair in pairs for a in ("--examples", pair)), "--out", out]
    run = CliRunner().invoke(app, [*arguments, "num_buckets=4K"])
    assert run.exit_code == 0, run.output
    assert "held out" in run.output
    few = tmp_path / "few.txt"
    few.write_text("one text")
    wrong = CliRunner().invoke(
        app, ["classifier", "train", "--examples", f"a={few}", "--examples", pairs[0], "--out", out]
    )
    assert isinstance(wrong.exception, UserError)
    assert "at least 20 different texts" in str(wrong.exception)


def test_tells_domains_apart() -> None:
    path = SHARED / "corpora"
    if not path.exists():
        pytest.skip("the shared corpora are not here")
    data, classes = [], []
    for number, name in enumerate(("news", "medicine", "politics")):
        with gzip.open(path / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            found = [json.loads(line)["text"][:1500] for line, _ in zip(lines, range(110), strict=False)]
        data += found
        classes += [number] * len(found)
    order = random.Random(0).sample(range(len(data)), len(data))
    train, held = order[60:], order[:60]
    model = fit(
        [data[i] for i in train],
        [classes[i] for i in train],
        ["news", "medicine", "politics"],
        Features(1 << 16, 2, 3, 1500),
        epochs=5,
        rate=0.3,
        seed=0,
    )
    right = sum(int(model.probabilities(data[i]).argmax()) == classes[i] for i in held)
    assert right >= 57
