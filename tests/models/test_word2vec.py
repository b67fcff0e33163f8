"""Word vectors as a family: files, a whole run, and another model that begins with what it wrote."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foundling.core.errors import UserError
from foundling.models.hub import load_model, save_model
from foundling.models.vectors import VectorFile
from foundling.models.word2vec import write_vectors
from foundling.parallel.world import enter_world
from foundling.serve.load import load
from foundling.train.build import build
from foundling.train.prepare import prepare
from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe
from tests.tiny import FIRST_ORDINARY, tiny_model, tiny_tokenizer
from tests.train.test_pretrain import stop_after

Make = Callable[..., Recipe]
WORDS: dict[str, Any] = {
    "model": {"family": "word2vec", "size": {"width": 32}},
    "optimizer": {"kind": "adamw", "lr": 1e-2, "weight_decay": 0.0, "eps": 1e-12},
    "train.length": "40 steps",
    "train.precision": "auto",
}


def test_a_folder_gives_back_the_same_bits(tmp_path: Path) -> None:
    model = tiny_model("word2vec")
    save_model(model, tmp_path / "model", tokenizer=tiny_tokenizer())
    back = load_model(tmp_path / "model")
    assert back.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
    with pytest.raises(UserError, match="word2vec model cannot say how likely a text is"):
        load(tmp_path / "model").log_likelihoods(["w7 w8"])


def test_the_vector_file_holds_every_ordinary_token(tmp_path: Path) -> None:
    tokenizer, vectors = tiny_tokenizer(), torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    write_vectors(tmp_path / "vectors.txt", vectors, tokenizer)
    file = VectorFile.open(tmp_path / "vectors.txt")
    assert (file.header_words, file.dimensions) == (50 - FIRST_ORDINARY, 4)
    found = {word: file.numbers(line, values) for line, word, values in file.words()}
    assert list(found) == [f"w{i}" for i in range(FIRST_ORDINARY, 50)]
    for word, values in found.items():
        np.testing.assert_allclose(values, vectors[int(word[1:])].numpy(), rtol=1e-5)


@pytest.mark.parametrize("mode", ["skipgram", "cbow"])
def test_a_run_learns_words_and_another_begins_with_them(mode: str, tiny_recipe: Make, tmp_path: Path) -> None:
    recipe = tiny_recipe(out="words", objective={"kind": "word2vec", "mode": mode, "subsample": 0.01}, **WORDS)
    run = pretrain(recipe)
    scores = [line for line in run.metrics if "valid/loss" in line]
    assert scores[-1]["valid/loss"] < scores[0]["valid/loss"]
    assert 0 < scores[-1]["valid/above_noise"] < 1
    assert "valid/bits_per_byte" not in scores[-1]
    assert run.summary["settings"]["precision"] == "fp32"
    path = run.folder / "vectors.txt"
    words: Any = load_model(run.model_dir)
    embedding = words.embedding.weight.detach()
    recipe = tiny_recipe(out="gpt", **{"model.embeddings": {"path": str(path), "scale": 1.0}})
    gpt = build(recipe, prepare(recipe, recipe.folder), recipe.folder, enter_world(1), None).model
    ordinary = [i for i in range(400) if i not in load(run.model_dir).tokenizer.special_ids]
    torch.testing.assert_close(gpt.embedding.weight[ordinary], embedding[ordinary], rtol=1e-5, atol=1e-7)


def test_a_resumed_run_is_the_same_to_the_bit(tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**WORDS, "train.length": "8 steps", "objective": "word2vec"}
    whole = pretrain(tiny_recipe(out="whole", **settings))
    cut = tiny_recipe(out="cut", **settings)
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        assert pretrain(cut).stop_signal == 15
    (cut.folder / "vectors.txt").unlink(missing_ok=True)
    again = pretrain(cut, resume=True)
    assert (again.folder / "vectors.txt").read_bytes() == (whole.folder / "vectors.txt").read_bytes()
