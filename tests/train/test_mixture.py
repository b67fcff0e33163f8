"""A mixture in a recipe: by path, source or domain; counted, limited, changed on the way, the same when resumed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundling.core.errors import UserError
from foundling.corpus import build as corpus_build
from foundling.data.store import TokenStore
from foundling.train.page import read_lines
from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe, recipe_from
from tests.tiny import write_texts
from tests.train.test_pretrain import assert_same_bits, stop_after

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def two_corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`news`, and `books` that is larger; `books` holds two domains."""
    folder = tmp_path_factory.mktemp("mixed")
    write_texts(folder / "raw-news" / "daily", 60, seed=1)
    write_texts(folder / "raw-books" / "prose", 120, seed=2)
    write_texts(folder / "raw-books" / "verse", 60, seed=3)
    made = []
    for name in ("news", "books"):
        config = corpus_build.Config(valid_fraction=0.15, steps=corpus_build.preset("plain"), domain="from:folder")
        made.append(corpus_build.build_corpus([folder / f"raw-{name}"], folder / name, config).dir)
    return made[0], made[1]


def last_line(folder: Path, name: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in reversed(lines) if name in line)


def mixed(tiny_data: Callable[..., dict[str, Any]], corpora: tuple[Path, Path], out: str, corpus: Any) -> Recipe:
    paths = [{"path": str(path)} for path in corpora]
    data = tiny_data(out, **{"train.length": "12 steps"})
    data["corpus"] = {"train": paths, **corpus}
    return recipe_from(data)


def test_tokens_and_losses_are_told_by_source(tiny_data: Any, two_corpora: tuple[Path, Path]) -> None:
    recipe = mixed(tiny_data, two_corpora, "run", {})
    data = recipe.model_dump(mode="json", by_alias=True)
    data["train"]["log_every"] = 1
    run = pretrain(recipe_from(data))
    counted = last_line(run.folder, "train/tokens")
    assert counted["train/tokens/news"] + counted["train/tokens/books"] == counted["train/tokens"] == 12 * 8 * 32
    assert counted["train/tokens/books"] > 2 * counted["train/tokens/news"]
    before = {"news": 0, "books": 0}
    for line in (line for line in read_lines(run.folder / "metrics.jsonl") if "train/loss" in line):
        seen = {name: line[f"train/tokens/{name}"] for name in before}
        nats = sum((seen[name] - before[name]) * line.get(f"train/loss/{name}", 0.0) for name in before)
        assert nats / (8 * 32) == pytest.approx(line["train/loss"], rel=1e-6)
        before = seen
    scored = last_line(run.folder, "valid/loss")
    parts = [scored["valid/loss/news"], scored["valid/loss/books"]]
    assert min(parts) < scored["valid/loss"] < max(parts)


def test_domains_by_weight_with_a_change_and_a_limit(tiny_data: Any, two_corpora: tuple[Path, Path]) -> None:
    corpus = {
        "mix": "domain",
        "weights": {"prose": 1, "verse": 1, "daily": 0},
        "changes": [{"at": "50 %", "weights": {"daily": 1, "verse": 1}}],
        "max_epochs": {"verse": 0.3},
    }
    run = pretrain(mixed(tiny_data, two_corpora, "run", corpus))
    counted = last_line(run.folder, "train/tokens")
    rows = {name: counted[f"train/tokens/{name}"] // 32 for name in ("prose", "verse", "daily")}
    limit = (TokenStore.open(run.folder / "tokens-1").split("train").part("verse").num_tokens - 1) // 32 * 0.3
    assert 24 < limit < 48, "the limit is reached in the second half"
    assert abs(rows["prose"] - 24) <= 2
    assert abs(rows["verse"] - limit) <= 2
    assert sum(rows.values()) == 96


def test_a_mixed_run_resumes_to_the_bit(
    tiny_data: Any, two_corpora: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = {"temperature": 3.0, "max_epochs": 2.0, "changes": [{"at": 0.5, "weights": {"news": 1}}]}
    whole = pretrain(mixed(tiny_data, two_corpora, "whole", corpus))
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        pretrain(mixed(tiny_data, two_corpora, "cut", corpus))
    cut = pretrain(mixed(tiny_data, two_corpora, "cut", corpus), resume=True)
    assert_same_bits(whole.folder, cut.folder)
    told = [
        [{k: v for k, v in line.items() if k.startswith("train/loss")} for line in read_lines(f / "metrics.jsonl")]
        for f in (whole.folder, cut.folder)
    ]
    assert any("train/loss/news" in line for line in told[0])
    assert told[0] == told[1], "also of steps between two lines, before and after the break"


def test_wrong_mixtures_are_told(tiny_data: Any, two_corpora: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"got 'new'; did you mean 'news'\?"):
        pretrain(mixed(tiny_data, two_corpora, "a", {"weights": {"new": 1}}))
    with pytest.raises(UserError, match="must last as long as the run"):
        pretrain(mixed(tiny_data, two_corpora, "b", {"max_epochs": 0.01}))
    with pytest.raises(UserError, match="rising shares"):
        mixed(tiny_data, two_corpora, "c", {"changes": [{"at": 0.5, "weights": {"news": 0}}]})
    with pytest.raises(UserError, match="either weights or a temperature"):
        mixed(tiny_data, two_corpora, "d", {"weights": {"news": 1}, "temperature": 2})
