"""Whole runs of an encoder-decoder and of a decoder with a prefix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import foundling
from foundling.core.errors import UserError
from foundling.models.hub import load_config
from foundling.serve.source_model import SourceModel
from foundling.tokenizers.bpe import Config as BpeConfig
from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe, recipe_from
from tests.processes import together
from tests.tiny import sentences
from tests.train.test_pretrain import assert_same_bits, metrics_of, stop_after

Make = Callable[..., Recipe]
SIZE = {"layers": 1, "width": 32, "heads": 4, "kv_heads": 2, "mlp_width": 64, "init_std": 0.02}
MODEL = {"family": "seq2seq", "size": SIZE}


@pytest.fixture(scope="session")
def with_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer folder with sentinels."""
    out = tmp_path_factory.mktemp("tokenizer") / "sentinels"
    extra = [f"<extra_id_{i}>" for i in range(4)]
    BpeConfig(kind="bpe", vocab_size=400, extra_tokens=extra).build().train(sentences(200)).save(out)
    return out


@pytest.fixture(params=["prefix", "spans"])
def make(request: pytest.FixtureRequest, tiny_recipe: Make, with_sentinels: Path) -> Make:
    keys: dict[str, Any] = {
        "model": MODEL,
        "objective": {"kind": "seq2seq", "pretext": request.param},
        "tokenizer": {"path": str(with_sentinels)},
    }
    return lambda out="run", **changes: tiny_recipe(out, **{**keys, **changes})


def test_a_run_learns_and_its_folder_answers(make: Make) -> None:
    run = foundling.pretrain(make(**{"train.length": "40 steps", "optimizer.lr": 1e-2}))
    scores = [line["valid/loss"] for line in run.metrics if "valid/loss" in line]
    assert scores[-1] < 0.85 * scores[0]
    assert "valid/bits_per_byte" not in run.summary["valid"]
    assert run.summary["tokens"] <= 40 * 8 * 32
    assert run.summary["tokens"] >= 0.9 * 40 * 8 * 32, "source and target are counted"
    model = foundling.load(run.folder)
    assert isinstance(model, SourceModel)
    assert isinstance(model.generate("The old sailor", max_tokens=5, seed=0), str)


def test_resumed_is_uninterrupted_to_the_bit(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pretrain(make("whole"))
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        cut = pretrain(make("cut"))
    assert not cut.summary["finished"]
    torch.manual_seed(99)
    pretrain(make("cut"), resume=True)
    assert_same_bits(whole.folder, cut.folder)


def test_micro_batches_add_up_to_the_whole_batch(make: Make) -> None:
    losses = [
        [
            line["train/loss"]
            for line in pretrain(make(f"by{n}", **{"train.micro_batch": n})).metrics
            if "train/loss" in line
        ]
        for n in (8, 2)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_trained_model_is_where_another_run_starts(make: Make, tiny_data: Callable[..., Any]) -> None:
    first = pretrain(make("first"))
    data = tiny_data("second", model={"from": str(first.folder)}, **{"train.length": "1 steps"})
    del data["tokenizer"]
    recipe = recipe_from(data)
    assert recipe.objective.kind == "seq2seq"
    second = pretrain(recipe)
    assert load_config(second.model_dir) == load_config(first.model_dir)


def test_without_sentinels_spans_are_refused_before_anything_is_trained(tiny_recipe: Make) -> None:
    recipe = tiny_recipe(model=MODEL, objective={"kind": "seq2seq", "pretext": "spans"})
    with pytest.raises(UserError, match=r"needs \d+ sentinels"):
        pretrain(recipe)
    assert not (recipe.folder / "metrics.jsonl").exists()


def test_a_causal_objective_is_refused(tiny_recipe: Make) -> None:
    with pytest.raises(UserError, match=r"trained by \(seq2seq\), since model.family is seq2seq"):
        pretrain(tiny_recipe(model=MODEL, objective={"kind": "causal"}))


def test_a_decoder_with_a_prefix_learns_keeps_the_word_and_reads_prompts_so(
    tiny_recipe: Make, tiny_data: Callable[..., Any]
) -> None:
    run = pretrain(tiny_recipe(objective={"kind": "causal", "prefix": [0.1, 0.6]}, **{"train.length": "30 steps"}))
    scores = [line["valid/loss"] for line in run.metrics if "valid/loss" in line]
    assert scores[-1] < 0.9 * scores[0]
    assert "valid/bits_per_byte" not in run.summary["valid"]
    assert load_config(run.model_dir).prefix
    assert isinstance(foundling.load(run.folder).generate("The old sailor", max_tokens=5, seed=0), str)
    # trained on without a prefix, it is a causal model again, which transformers knows
    data = tiny_data("causal", model={"from": str(run.folder)}, **{"train.length": "1 steps"})
    del data["tokenizer"]
    again = pretrain(recipe_from(data))
    assert not load_config(again.model_dir).prefix


@pytest.mark.slow
@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize("make", ["spans"], indirect=True)
def test_compiled_in_bf16_learns_what_fp32_does(make: Make) -> None:
    keys = {"train.length": "12 steps", "evaluate.tokens": 256}
    plain = pretrain(make("plain", **keys))
    fast = pretrain(make("fast", **keys, **{"train.compile": True, "train.precision": "bf16"}))
    assert fast.summary["settings"]["compiled"]
    assert fast.summary["valid"]["loss"] == pytest.approx(plain.summary["valid"]["loss"], rel=0.02)


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("tensor", [1, 2])
def test_two_processes_learn_what_one_does(
    tiny_recipe: Make, tiny_data: Callable[..., Any], tmp_path: Path, tensor: int
) -> None:
    keys: dict[str, Any] = {"model": MODEL, "objective": {"kind": "seq2seq"}, "train.log_every": 1}
    one = pretrain(tiny_recipe("one", **keys))
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump(tiny_data("two", **keys, **{"parallel.tensor": tensor})))
    together(2, "-m", "foundling", "pretrain", str(recipe))
    found = [
        [line["train/loss"] for line in metrics_of(tmp_path / name) if "train/loss" in line] for name in ("one", "two")
    ]
    assert one.folder == tmp_path / "one"
    assert found[0] == pytest.approx(found[1], abs=1e-4)
