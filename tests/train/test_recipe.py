"""What a recipe may say, and what is told of one that says something else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling.core.config import resolved
from foundling.core.errors import UserError
from foundling.train import dial
from foundling.train.pretrain import pretrain
from foundling.train.recipe import read_recipe, recipe_from

SMALLEST: dict[str, Any] = {
    "name": "x", "corpus": {"train": "books/"}, "tokenizer": "tok/", "model": {"family": "gpt", "size": "tiny"},
}  # fmt: skip


def told(**changes: Any) -> str:
    """What the recipe's fault says."""
    with pytest.raises(UserError) as caught:
        recipe_from({**SMALLEST, **changes})
    return str(caught.value)


def test_short_forms_mean_their_long_ones() -> None:
    short = recipe_from(SMALLEST)
    long = recipe_from(
        {
            "name": "x",
            "corpus": {"train": [{"path": "books/"}], "valid": {"fraction": 0.01}},
            "tokenizer": {"path": "tok/"},
            "model": {"family": "gpt", "size": "tiny"},
            "objective": {"kind": "causal"},
            "optimizer": {"kind": "adamw"},
            "schedule": "wsd",
            "track": ["jsonl"],
        }
    )
    assert short == long
    assert recipe_from(resolved(short)) == short
    trained = recipe_from({**SMALLEST, "tokenizer": {"kind": "bpe", "vocab_size": "16K"}})
    assert trained.tokenizer is not None
    assert resolved(trained)["tokenizer"]["train"]["vocab_size"] == 16_000
    assert short.folder == Path("runs/x")
    assert recipe_from({**SMALLEST, "out": "elsewhere"}).folder == Path("elsewhere")


def test_a_part_without_its_kind_is_the_usual_one() -> None:
    recipe = recipe_from({**SMALLEST, "optimizer": {"lr": 0.1}, "schedule": {"warmup": 0.5}})
    assert (recipe.optimizer.kind, recipe.schedule.kind) == ("adamw", "wsd")


def test_all_faults_are_told_at_once() -> None:
    message = told(
        train={"lenght": "5 steps", "clip": -1, "sequence_length": "long"}, optimizer={"kind": "adamx"}, seed="one"
    )
    lines = message.splitlines()
    assert lines[0] == "recipe: 5 faults"
    for part in (
        "train.lenght: unknown key; did you mean 'length'?",
        "train.clip: ",
        "train.sequence_length: expected a number such as",
        "did you mean 'adam",
        "seed: ",
    ):
        assert sum(part in line for line in lines[1:]) == 1, part


@pytest.mark.parametrize(
    ("where", "key", "ours"),
    [
        ("train", "per_device_train_batch_size", "train.batch"),
        ("train", "num_train_epochs", "train.length (e.g. 2 epochs)"),
        ("optimizer", "learning_rate", "optimizer.lr"),
        ("train", "max_grad_norm", "train.clip"),
    ],
)
def test_names_of_other_tools_lead_to_ours(where: str, key: str, ours: str) -> None:
    message = told(**{where: {key: 1}})
    assert f"{where}.{key}: unknown key; here it is called {ours}" in message


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"objective": {"kind": "casual"}}, "did you mean 'causal'?"),
        ({"model": {"family": "gtp", "size": "tiny"}}, "did you mean 'gpt'?"),
        ({"model": {"family": "gpt", "size": "tinny"}}, "did you mean 'tiny'?"),
        ({"model": {"family": "gpt", "size": {"like": "tinny"}}}, "got 'tinny'; did you mean 'tiny'?"),
        ({"model": {"family": "gpt", "size": {"like": "tiny", "widht": 8}}}, "did you mean 'width'?"),
        ({"optimizer": "rmsprop"}, "optimizer must be one of adafactor, "),
        ({"model": {"family": "gpt", "size": "tiny", "depth": 4}}, "give one of size, depth or from"),
        ({"model": {"family": "gpt"}}, "give one of size, depth or from"),
        ({"model": {"size": "tiny"}}, "family is missing"),
        ({"model": {"family": "gpt", "size": {"layers": 2, "width": 30, "heads": 4}}}, "multiple of heads"),
        ({"model": {"from": "runs/a"}}, "tokenizer comes with model.from"),
        ({"model": {"from": "runs/a", "ngrams": {}}, "tokenizer": None}, "give one of from and ngrams"),
        ({"model": {"family": "bert", "size": "tiny", "ngrams": {}}}, "ngrams are read by the family gpt; got bert"),
        ({"model": {"family": "gpt", "depth": 2, "ngrams": {"order": [2]}}}, "ngrams.order"),
        ({"objective": {"prefix": True}}, "objective.prefix: expected a share of each row such as 0.5"),
        ({"objective": {"kind": "mlm"}}, "trained by (causal), since model.family is gpt; got mlm"),
        ({"tokenizer": None}, "tokenizer is missing"),
        ({"tokenizer": {}}, "expected a path, or a kind to train"),
        ({"corpus": {"train": []}}, "expected at least one source"),
        ({"corpus": {"train": [{"path": "a", "weight": 1}, "b"]}}, "a weight to every source or to none"),
        ({"corpus": {"train": "a", "valid": {}}}, "either fraction or path"),
        ({"train": {"length": "5 minutes"}}, "expected '20M tokens' or '500 steps' or '2 epochs'"),
        ({"train": {"length": 500}}, "with its unit"),
        ({"train": {"batch": "0.5"}}, "train.batch"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas.1"),
        ({"optimizer": {"groups": [{"match": "a", "rate": 1}]}}, "optimizer.groups.0.rate: unknown key"),
    ],
)
def test_what_cannot_be_is_told_with_a_way_out(changes: dict[str, Any], part: str) -> None:
    assert part in told(**changes)


def test_a_named_size_with_keys_of_its_own() -> None:
    def fields(size: Any) -> Any:
        return recipe_from({**SMALLEST, "model": {"family": "gpt", "size": size}}).model.fields(1000, 256)

    named, own = fields("tiny"), fields({"like": "tiny", "init": "xavier", "dropout": 0.1})
    assert own == named.model_copy(update={"init": "xavier", "dropout": 0.1}) != named


def test_the_dial_gives_shape_and_settings() -> None:
    assert dial.shape_of_depth(6) == {"layers": 6, "width": 384, "heads": 6}
    config = recipe_from({**SMALLEST, "model": {"family": "gpt", "depth": 3}}).model.fields(1000, 256)
    assert (config.layers, config.width, config.heads, config.max_positions) == (3, 192, 3, 256)
    rates = [dial.default_lr(64 * depth) for depth in (2, 6, 24)]
    assert rates == sorted(rates, reverse=True)
    assert dial.default_lr(192) == 1.4e-3
    assert dial.default_lr(384) == 0.7e-3, "half of it at twice the width"
    batches = [dial.default_batch_tokens(tokens) for tokens in (10**5, 10**8, 10**10)]
    assert batches == sorted(batches)
    assert all(batch & (batch - 1) == 0 for batch in batches)
    assert dial.default_tokens(100) == 2000
    assert [dial.default_row_length(depth) for depth in (4, 10, 12)] == [256, 512, 1024]


def test_a_run_fills_in_what_the_dial_says(tiny_data: Callable[..., Any]) -> None:
    data = tiny_data(model={"family": "gpt", "depth": 1}, optimizer={"kind": "adamw"})
    run = pretrain(recipe_from(data | {"train": {**data["train"], "length": "1 step"}}))
    assert run.summary["settings"]["lr"] == dial.default_lr(64)
    assert run.summary["settings"]["row_length"] == 32


def test_overrides_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my-run.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in SMALLEST.items() if k != "name"}))
    recipe = read_recipe(path, ("train.clip=2", "optimizer.lr=1e-3", "model={family: gpt, depth: 2}"))
    assert recipe.name == "my-run"
    assert recipe.train.clip == 2
    assert recipe.model.depth == 2
