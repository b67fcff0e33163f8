"""Dropout as a recipe asks for it: part of what is learnt, exact on resume, none of a model folder's business."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from foundling.core.errors import UserError
from foundling.core.files import read_json
from foundling.nn.dropout import draws
from foundling.tasks.folder import load_task
from foundling.train.finetune import finetune
from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe
from foundling.train.start import with_dropout
from tests.tasks.small import base_folder, recipe, write_rows
from tests.tiny import tiny_model
from tests.train.test_finetune import ROWS
from tests.train.test_pretrain import assert_same_bits, stop_after, tensors_of

Make = Callable[..., Recipe]


def test_resumed_is_uninterrupted_to_the_bit(tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"train.dropout": 0.2}
    whole = pretrain(tiny_recipe("whole", **keys))
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        pretrain(tiny_recipe("cut", **keys))
    torch.manual_seed(99)
    pretrain(tiny_recipe("cut", **keys), resume=True)
    assert_same_bits(whole.folder, tiny_recipe("cut").folder)
    plain = tensors_of(pretrain(tiny_recipe("plain")).folder)
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in tensors_of(whole.folder).items())


def test_the_size_may_say_it_too(tiny_data: Callable[..., dict[str, Any]], tiny_recipe: Make) -> None:
    size = {**tiny_data()["model"]["size"], "dropout": 0.2}
    one = pretrain(tiny_recipe("one", **{"train.dropout": 0.2, "train.length": "3 steps"}))
    two = pretrain(tiny_recipe("two", **{"model.size": size, "train.length": "3 steps"}))
    assert_same_bits(one.folder, two.folder)
    assert read_json(one.model_dir / "manifest.json")["settings"]["dropout"] == 0, "of training, not of the model"


def test_ngrams_are_left_out_in_training_alone(tiny_recipe: Make) -> None:
    ngrams = {"orders": [2, 3], "rows": 100}
    runs = [
        pretrain(tiny_recipe(str(rate), **{"model.ngrams": {**ngrams, "dropout": rate}, "train.length": "3 steps"}))
        for rate in (0.0, 0.5)
    ]
    one, two = ((run.model_dir / "model.safetensors").read_bytes() for run in runs)
    assert one != two
    saved = [read_json(run.model_dir / "manifest.json")["settings"]["ngrams"] for run in runs]
    assert saved[0] == saved[1]
    assert saved[0]["dropout"] == 0


def test_a_fine_tuning_drops_in_body_and_head(tmp_path: Path) -> None:
    files = {"train": str(write_rows(tmp_path / "train.jsonl", ROWS)), "dev": str(write_rows(tmp_path / "d", ROWS[:6]))}
    task = {"kind": "classification", **files}
    base = base_folder(tmp_path, "bert")
    runs = [
        finetune(recipe(tmp_path / name, base, task, dropout=rate, length="6 steps"))
        for name, rate in (("none", 0.0), ("one", 0.3), ("two", 0.3))
    ]
    weights = [(run.model_dir / "model.safetensors").read_bytes() for run in runs]
    assert weights[1] == weights[2] != weights[0]
    model: Any = with_dropout(load_task(runs[1].model_dir)[1].config, 0.3).build()
    assert isinstance(model.head.dropout, nn.Dropout)
    assert draws(model.body)


def test_a_family_without_layers_is_told() -> None:
    with pytest.raises(UserError, match=r"train\.dropout is not for a word2vec model"):
        with_dropout(tiny_model("word2vec").config, 0.1)
