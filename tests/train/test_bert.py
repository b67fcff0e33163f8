"""Encoders through the whole: recipe to model folder, rows of many lengths, exact resume, heads of a given model."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from foundling.core.config import resolved
from foundling.core.errors import UserError
from foundling.corpus.folder import open_corpus
from foundling.models.hub import load_model, save_model
from foundling.parallel.world import enter_world
from foundling.tokenizers.base import load_tokenizer
from foundling.tokenizers.train import train_tokenizer
from foundling.tokenizers.wordpiece import Config as WordPiece
from foundling.train import loop, prepare
from foundling.train import pretrain as pretrain_module
from foundling.train.build import build
from foundling.train.loop import micro_batches, runs_of
from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe, recipe_from
from foundling.train.state import Training
from tests.processes import together
from tests.tiny import tiny_model
from tests.train.test_pretrain import assert_same_bits, metrics_of, stop_after, tensors_of

Make = Callable[..., Recipe]
NSP = {"kind": "mlm", "next": {"kind": "nsp", "short_rate": 0.5}}


@pytest.fixture(scope="session")
def wordpieces(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wordpiece") / "tokenizer"
    texts = (document.text for document in open_corpus(tiny_corpus).documents("train"))
    train_tokenizer(texts, WordPiece(vocab_size=190), out, inputs={})
    return out


@pytest.fixture
def bert_recipe(tiny_data: Callable[..., dict[str, Any]], wordpieces: Path) -> Make:
    def make(out: str = "run", **changes: Any) -> Recipe:
        keys = {
            "tokenizer.path": str(wordpieces), "objective": NSP,
            "model": {"family": "bert", "size": {"layers": 2, "width": 32, "heads": 4}}, **changes,
        }  # fmt: skip
        data = tiny_data(out, **keys)
        if "from" in data["model"]:
            del data["tokenizer"]
        return recipe_from(data)

    return make


def first_training(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Training:
    seen: list[Training] = []
    monkeypatch.setattr(pretrain_module.Metrics, "on_start", lambda self, training: seen.append(training))
    pretrain(recipe)
    return seen[0]


def test_a_recipe_trains_both_losses_and_writes_a_folder_of_transformers(bert_recipe: Make) -> None:
    transformers = pytest.importorskip("transformers")
    run = pretrain(bert_recipe(**{"train.length": "60 steps"}))
    lines = metrics_of(run.folder)
    parts = [line for line in lines if "train/loss_mlm" in line]
    assert all(line["train/loss_mlm"] + line["train/loss_nsp"] == pytest.approx(line["train/loss"]) for line in parts)
    assert parts[0]["train/loss_mlm"] < np.log(190) - 0.5, "it begins with what is known of frequencies"
    assert np.mean([line["train/loss_mlm"] for line in parts[-5:]]) < np.log(190) - 0.5
    valid = [line for line in lines if "valid/loss" in line]
    assert {"valid/mlm_accuracy", "valid/next_accuracy", "valid/perplexity"} <= valid[-1].keys()
    assert "valid/bits_per_byte" not in valid[-1]
    theirs, info = transformers.BertForPreTraining.from_pretrained(run.model_dir, output_loading_info=True)
    assert not any(info.values()), info
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.model_dir)
    assert theirs.config.pad_token_id == tokenizer.pad_token_id == load_tokenizer(run.model_dir).pad_id


@pytest.mark.parametrize("stop", [1, 5])
def test_resumed_is_uninterrupted_to_the_bit(bert_recipe: Make, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    whole = pretrain(bert_recipe("whole"))
    with monkeypatch.context() as patch:
        stop_after(stop, patch)
        pretrain(bert_recipe("cut"))
    torch.manual_seed(99)
    pretrain(bert_recipe("cut"), resume=True)
    assert_same_bits(whole.folder, pretrain(bert_recipe("cut"), resume=True).folder)


PHASES = {
    "train.phases": [{"share": 0.75, "sequence_length": 16}, {"share": 0.25, "sequence_length": 64}],
    "train.batch": "256 tokens", "train.sequence_length": None, "train.micro_batch": 2, "objective": {"kind": "mlm"},
}  # fmt: skip


@pytest.mark.parametrize("stop", [3, 6, 7])
def test_phases_change_the_row_length_and_resume_to_the_bit(
    bert_recipe: Make, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    seen: list[tuple[int, int, int]] = []

    def note(training: Training) -> list[Any]:
        batches = micro_batches(training)
        longest = max(batch.max_row_length for batch in batches)
        seen.append((training.step, longest, sum(batch.num_rows for batch in batches)))
        return batches

    monkeypatch.setattr(loop, "micro_batches", note)
    whole = pretrain(bert_recipe("whole", **PHASES))
    assert [(step, rows) for step, _, rows in seen] == [*((step, 16) for step in range(6)), (6, 4), (7, 4)]
    assert max(longest for step, longest, _ in seen if step < 6) == 16
    assert all(16 < longest <= 64 for step, longest, _ in seen if step >= 6), seen
    assert load_model(whole.model_dir).config.max_positions == 64  # type: ignore[union-attr]
    validated = {line["step"]: line["valid/row_length"] for line in metrics_of(whole.folder) if "valid/loss" in line}
    assert validated[0] == 16, "positions beyond it were never trained"
    assert validated[8] == 64
    assert all(length == (16 if step <= 6 else 64) for step, length in validated.items()), validated
    with monkeypatch.context() as patch:
        stop_after(stop, patch)
        pretrain(bert_recipe("cut", **PHASES))
    assert_same_bits(whole.folder, pretrain(bert_recipe("cut", **PHASES), resume=True).folder)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"train.phases": [{"share": 0.9, "sequence_length": 16}]}, "must add up to 1; got 0.9"),
        ({"train.sequence_length": 16}, "give either sequence_length or phases"),
        ({"train.batch": "8 rows"}, "batch must be in tokens; got 8 examples"),
        ({"train.length": "1 steps"}, "each of train.phases must last at least one step; got 1 steps"),
        ({"corpus.max_epochs": 3}, "over a run whose rows have one length; got train.phases"),
    ],
)
def test_phases_that_make_no_run_are_told(bert_recipe: Make, keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        pretrain(bert_recipe(**{**PHASES, **keys}))


def test_micro_batches_add_up_to_the_whole_batch(bert_recipe: Make) -> None:
    keys = {"optimizer.eps": 1e-4}  # so that an update is no sign of a gradient that is all rounding
    runs = [pretrain(bert_recipe(f"by{n}", **keys, **{"train.micro_batch": n})) for n in (8, 3, 1)]
    whole, *parts = [tensors_of(run.folder) for run in runs]
    for part in parts:
        for name, tensor in whole.items():
            if name.startswith("master/"):
                torch.testing.assert_close(part[name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def test_micro_batches_hold_each_row_of_the_step_once_by_length(
    bert_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = first_training(bert_recipe(**{"train.length": "1 steps", "train.batch": "24 rows"}), monkeypatch)
    for training.step in range(5):
        batches = micro_batches(training)
        samples = [sample for batch in batches for sample in batch.samples_R]
        assert sorted(samples) == list(range(24 * training.step, 24 * (training.step + 1)))
        lengths = [n for batch in batches for n in batch.bounds_R1.diff().tolist()]
        assert lengths == sorted(lengths, reverse=True)
        assert max(batch.num_tokens for batch in batches) <= training.settings.micro_batch_rows * 32 + 32


def test_runs_are_even_and_none_is_empty() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = sorted(rng.integers(1, 100, int(rng.integers(1, 20))).tolist(), reverse=True)
        number = int(rng.integers(1, len(lengths) + 1))
        ends = runs_of(lengths, number)
        assert len(ends) == number
        assert ends[-1] == len(lengths)
        runs = [sum(lengths[a:b]) for a, b in pairwise([0, *ends])]
        assert min(runs) > 0
        assert max(runs) <= sum(lengths) / number + 2 * max(lengths)
    assert runs_of([32] * 12, 3) == [4, 8, 12]


def test_an_encoder_alone_gets_the_heads_that_the_objective_asks_for(
    bert_recipe: Make, wordpieces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = tiny_model("bert", 190, top="pooler", max_positions=32)
    save_model(given, tmp_path / "given", tokenizer=load_tokenizer(wordpieces))
    keys = {"model": {"from": str(tmp_path / "given")}, "train.length": "1 steps", "optimizer.lr": 1e-9}
    with caplog.at_level("INFO", logger="foundling"):
        both = pretrain(bert_recipe("both", **keys))
        assert "new, with initial values, for the given model has none: head.bias, head.dense.bias" in caplog.text
        assert "next.bias, next.weight" in caplog.text
        assert re.search(r"loss [\d.]+ \(mlm [\d.]+, nsp [\d.]+\)", caplog.text), "the parts of what is minimised"
        assert re.search(r"valid [\d.]+, \d+ % of pairs", caplog.text)
        caplog.clear()
        masked = pretrain(bert_recipe("masked", objective="mlm", **keys))
        assert "left out, for nothing here reads such a head: pooler.bias, pooler.weight" in caplog.text
    for run, top in ((both, "pretraining"), (masked, "masked")):
        model: Any = load_model(run.model_dir)
        assert model.config.top == top
        torch.testing.assert_close(model.embedding.weight, given.embedding.weight, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"model.size": {"layers": 1, "width": 16, "heads": 2, "max_positions": 16}},
            "train.sequence_length must fit the model's positions; got 32 against max_positions 16",
        ),
        ({"model.size": {"layers": 1, "width": 16, "heads": 2, "math": "modern"}}, "neither pooler nor next-sentence"),
        ({"objective": "causal"}, r"trained by \(mlm\), since model.family is bert; got causal"),
        ({"model.family": "gpt"}, r"trained by \(causal\), since model.family is gpt; got mlm"),
    ],
)
def test_faults_are_told(bert_recipe: Make, keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        pretrain(bert_recipe(**keys))


def test_a_given_model_keeps_its_bias_and_a_new_head_begins_with_frequencies(
    bert_recipe: Make, wordpieces: Path, tmp_path: Path
) -> None:
    for top in ("pretraining", "none"):
        given = tiny_model("bert", 190, top=top, max_positions=32)
        if top == "pretraining":
            torch.nn.init.constant_(given.head.bias, 7.0)
        save_model(given, tmp_path / top, tokenizer=load_tokenizer(wordpieces))
        recipe = bert_recipe(model={"from": str(tmp_path / top)}, objective={"kind": "mlm"})
        training = build(recipe, prepare.prepare(recipe, recipe.folder), recipe.folder, enter_world(1), None)
        bias_V = training.model.head.bias
        assert (bias_V == 7.0).all() if top == "pretraining" else bias_V.exp().sum().item() == pytest.approx(1.0)


def test_a_tokenizer_without_a_mask_is_told_before_the_text_is_tokenized(
    tiny_data: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "store_of", lambda *_: pytest.fail("text was tokenized"))
    model = {"family": "bert", "size": {"layers": 1, "width": 16, "heads": 2}}
    with pytest.raises(UserError, match="special tokens mask, cls and sep; got none for mask, cls, sep; train one"):
        pretrain(recipe_from(tiny_data(model=model)))


def test_a_family_that_is_not_the_models_is_told(bert_recipe: Make, wordpieces: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(wordpieces)
    save_model(tiny_model("gpt", 190), tmp_path / "given", tokenizer=tokenizer)
    with pytest.raises(UserError, match=r"model\.family must be that of model\.from, gpt; got bert"):
        pretrain(bert_recipe(model={"from": str(tmp_path / "given"), "family": "bert"}))


def test_vocabularies_that_differ_are_told(wordpieces: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a model of 100 ids must have a tokenizer of at most as many; got one of 190"):
        save_model(tiny_model("bert", 100), tmp_path / "given", tokenizer=load_tokenizer(wordpieces))


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes_learn_what_one_does(bert_recipe: Make, tmp_path: Path) -> None:
    """Their rows differ in length, and so do the micro-batches that each would make alone; they make as many."""
    keys = {"train.length": "10 steps", "train.batch": "12 rows", "train.micro_batch": 2, "train.log_every": 1}
    one = pretrain(bert_recipe("one", **keys))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(resolved(bert_recipe("two", **keys))), encoding="utf-8")
    together(2, "-m", "foundling", "pretrain", str(tmp_path / "two.yaml"))
    first, second = metrics_of(one.folder), metrics_of(tmp_path / "two")
    for key in ("train/loss_mlm", "train/loss_nsp", "train/gradient_norm", "train/tokens", "valid/next_loss"):
        values = [[line[key] for line in lines if key in line] for lines in (first, second)]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-4, err_msg=key)


@pytest.mark.parametrize("math", ["bert", "modern"])
@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_tensor_group_of_two_learns_what_one_process_does(bert_recipe: Make, tmp_path: Path, math: str) -> None:
    size = {"layers": 2, "width": 32, "heads": 4, "math": math, "global_every": 2, "window": 8}
    keys = {"train.length": "6 steps", "train.log_every": 1, "model.size": size, "optimizer.lr": 1e-3}
    keys["objective"] = NSP if math == "bert" else {"kind": "mlm"}
    one = pretrain(bert_recipe("one", **keys))
    split = resolved(bert_recipe("split", **keys, **{"parallel.tensor": 2}))
    (tmp_path / "split.yaml").write_text(yaml.safe_dump(split), encoding="utf-8")
    together(2, "-m", "foundling", "pretrain", str(tmp_path / "split.yaml"))
    first, second = metrics_of(one.folder), metrics_of(tmp_path / "split")
    for key in ("train/loss", "train/gradient_norm", "valid/loss"):
        values = [[line[key] for line in lines if key in line] for lines in (first, second)]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-4, err_msg=key)


@pytest.mark.parametrize("math", ["bert", "modern"])
@pytest.mark.slow
@pytest.mark.xdist_group("compile")
def test_compiled_in_bf16_learns_what_fp32_does(bert_recipe: Make, math: str) -> None:
    size = {"layers": 2, "width": 32, "heads": 2, "math": math, "global_every": 2, "window": 8}
    objective = NSP if math == "bert" else {"kind": "mlm"}
    keys = {"train.length": "12 steps", "model.size": size, "objective": objective, "train.batch": "16 rows"}
    plain = pretrain(bert_recipe("plain", **keys))
    fast = pretrain(bert_recipe("fast", **keys, **{"train.compile": True, "train.precision": "bf16"}))
    assert fast.summary["settings"]["compiled"]
    assert fast.summary["valid"]["loss"] == pytest.approx(plain.summary["valid"]["loss"], rel=0.02)
