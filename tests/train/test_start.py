"""What weights a run begins with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from foundling.core.errors import UserError
from foundling.models.hub import load_model
from foundling.parallel.world import enter_world
from foundling.tokenizers.base import Tokenizer, load_tokenizer
from foundling.train.build import build
from foundling.train.prepare import Data, prepare
from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe, recipe_from
from foundling.train.start import fill, fill_logit_bias, token_counts
from foundling.train.state import Training
from tests.tiny import ENGLISH, tiny_model

Make = Callable[..., Recipe]


def begun(recipe: Recipe) -> Training:
    """The live objects of a run before its first step."""
    return build(recipe, data_of(recipe), recipe.folder, enter_world(1), None)


def data_of(recipe: Recipe) -> Data:
    return prepare(recipe, recipe.folder)


def write_vectors(path: Path, width: int = 32) -> Path:
    rng = np.random.default_rng(0)
    words = sorted(set(ENGLISH))
    lines = (" ".join([word, *(f"{x:.4f}" for x in rng.normal(size=width))]) for word in words)
    path.write_text(f"{len(words)} {width}\n" + "\n".join(lines) + "\n")
    return path


def test_a_run_begins_with_word_vectors(tiny_recipe: Make, tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "v.vec")
    plain = begun(tiny_recipe(out=str(tmp_path / "plain")))
    with_words = begun(tiny_recipe(out=str(tmp_path / "words"), **{"model.embeddings": str(path)}))
    one, two = plain.model.embedding.weight, with_words.model.embedding.weight
    assert not torch.isclose(one, two).all(1).any()
    assert two.square().mean().sqrt().item() == pytest.approx(one.square().mean().sqrt().item(), rel=0.25)
    for name, parameter in plain.model.named_parameters():
        if name != "embedding.weight":
            assert torch.equal(parameter, dict(with_words.model.named_parameters())[name]), name
    master = next(slot.master for slot in with_words.optimizer.slots if slot.name == "embedding.weight")
    assert torch.equal(master, two)


def test_a_run_begins_by_answering_how_often_tokens_come(tiny_recipe: Make) -> None:
    model = {"family": "xlnet", "size": {"layers": 1, "width": 32, "heads": 2}}
    recipe = tiny_recipe(model=model, objective={"kind": "permutation"})
    counts_V = token_counts(data_of(recipe)) + 0.5
    training = begun(recipe)
    bias_V = training.model.head.bias.detach()
    np.testing.assert_allclose(bias_V.exp().numpy(), counts_V / counts_V.sum(), rtol=1e-5)
    slot = next(slot for slot in training.optimizer.slots if slot.name == "head.bias")
    assert torch.equal(slot.master, bias_V)


def test_frequencies_are_those_of_what_is_drawn(tiny_recipe: Make) -> None:
    model = {"family": "xlnet", "size": {"layers": 1, "width": 32, "heads": 2}}
    recipe = tiny_recipe(model=model, objective={"kind": "permutation"})
    data = data_of(recipe)
    (stream,) = data.train
    first, second = _Part(stream, 0), _Part(stream, 1000)
    model = begun(recipe).model
    fill_logit_bias(model, replace(data, train=[first, second]), (0.0, 1.0))  # type: ignore[list-item]
    bias_V = model.head.bias.detach()
    counts_V = np.bincount(second.read(0, 1000), minlength=len(bias_V)) * 2 + 0.5
    np.testing.assert_allclose(bias_V.exp().numpy(), counts_V / counts_V.sum(), rtol=1e-5)


class _Part:
    """A thousand tokens of a stream."""

    num_tokens = 1000

    def __init__(self, stream: Any, first: int) -> None:
        self._stream, self._first = stream, first

    def read(self, start: int, length: int) -> np.ndarray:
        found: np.ndarray = self._stream.read(self._first + start, length)
        return found


def test_a_resumed_run_needs_the_vectors_no_more(tiny_recipe: Make, tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "v.vec")
    recipe = tiny_recipe(out=str(tmp_path / "run"), **{"model.embeddings": {"path": str(path), "scale": 0.1}})
    pretrain(recipe)
    path.unlink()
    assert pretrain(recipe, resume=True).summary["finished"]


def test_vectors_of_another_width_and_beside_given_weights_are_told(tiny_recipe: Make, tmp_path: Path) -> None:
    """Before anything is made of the text."""
    path = write_vectors(tmp_path / "v.vec", width=31)
    with pytest.raises(UserError, match=r"as wide as the model, 32; got 31 numbers.*set the model's width to 31"):
        pretrain(tiny_recipe(out=str(tmp_path / "run"), **{"model.embeddings": str(path)}))
    with pytest.raises(UserError, match=r"a file of word vectors must exist"):
        pretrain(tiny_recipe(out=str(tmp_path / "run"), **{"model.embeddings": str(tmp_path / "nowhere.vec")}))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="give one of from and embeddings"):
        recipe_from({"name": "x", "corpus": {"train": "a"}, "model": {"from": "b", "embeddings": "v.vec"}})


def test_weights_of_which_nothing_is_taken_are_told() -> None:
    with pytest.raises(UserError, match="must hold weights of the model that is trained; got none of its names: x"):
        fill(tiny_model("gpt"), {"x": torch.zeros(2)}, 0)


def test_training_tokens_are_counted(tiny_recipe: Make, tmp_path: Path) -> None:
    data = data_of(tiny_recipe(out=str(tmp_path / "run")))
    counts = token_counts(data)
    assert counts.sum() == sum(stream.num_tokens for stream in data.train)
    assert counts[data.train[0].read(0, 1)[0]] > 0


def more_tokens(tokenizer: Path, out: Path, *words: str) -> Path:
    """A tokenizer folder with further plain tokens."""
    old = load_tokenizer(tokenizer)
    raw = tokenizers.Tokenizer.from_str(old.json)
    raw.add_tokens(list(words))
    Tokenizer(raw, old.special, kind=old.kind).save(out)
    return out


def test_a_run_goes_on_with_more_tokens(tiny_recipe: Make, tiny_tokenizer: Path, tmp_path: Path) -> None:
    first = pretrain(tiny_recipe(out="first"))
    folder = more_tokens(tiny_tokenizer, tmp_path / "more", "sailor", "silent")
    changes = {
        "model": {"from": str(first.folder)}, "tokenizer": {"path": str(folder), "extend": True},
        "train.length": "20 steps",
    }  # fmt: skip
    begins = begun(tiny_recipe(out="second", **changes))
    old: Any = load_model(first.model_dir)
    assert begins.model.config.vocab_size == 402
    assert torch.equal(begins.model.embedding.weight[:400], old.embedding.weight)
    pieces = load_tokenizer(tiny_tokenizer).encode("sailor")
    torch.testing.assert_close(begins.model.embedding.weight[400], old.embedding.weight[pieces].mean(0))
    run = pretrain(tiny_recipe(out="third", **changes))
    again: Any = load_model(run.model_dir)
    assert again.config.vocab_size == load_tokenizer(run.model_dir).vocab_size == 402


def test_another_vocabulary_needs_the_word(tiny_data: Callable[..., dict[str, Any]]) -> None:
    data = tiny_data(model={"from": "a"}, tokenizer={"path": "b"})
    with pytest.raises(UserError, match=r"tokenizer comes with model.from; take it out .*; extend: true"):
        recipe_from(data)
    with pytest.raises(UserError, match=r"tokenizer.extend needs model.from"):
        recipe_from(tiny_data(**{"tokenizer.extend": True}))
    with pytest.raises(UserError, match="extend needs the path"):
        recipe_from(tiny_data(model={"from": "a"}, tokenizer={"kind": "bpe", "extend": True}))
