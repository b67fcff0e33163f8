"""A model folder that is written is read again: nothing that differs from the model is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from foundling.core.errors import UserError
from foundling.core.registry import part_names
from foundling.models.hub import _save, load_model, save_model
from foundling.models.hub._weights import write_weights
from foundling.tokenizers.base import SpecialTokens, Tokenizer, load_tokenizer
from tests.tiny import SPECIAL, tiny_model, tiny_tokenizer

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt": {"math": "gpt2", "kv_heads": 4},
    "bert": {"top": "pretraining"},
    "xlnet": {"tied": False},
    "seq2seq": {"math": "2017", "kv_heads": 4},
    "word2vec": {},
}
Make = Callable[[], torch.Tensor]


def written(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[str, torch.Tensor], torch.Tensor]) -> list[str]:
    """From here on files hold what `spoil` makes of each tensor; the names of those that were written."""
    names: list[str] = []

    def spoilt(name: str, make: Make) -> Make:
        return lambda: spoil(name, make())

    def written_otherwise(folder: Path, tensors: dict[str, tuple[int, Make]], max_shard_bytes: int) -> None:
        names[:] = tensors
        write_weights(folder, {k: (n, spoilt(k, make)) for k, (n, make) in tensors.items()}, max_shard_bytes)

    monkeypatch.setattr(_save, "write_weights", written_otherwise)
    return names


def test_every_family_is_tried() -> None:
    assert set(FAMILIES) == set(part_names("models"))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_bit_of_any_weight_may_differ(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last number of a tensor one step further on its scale: of all embeddings, of which the answers to a few
    tokens read few rows, and of some of what the blocks hold."""
    model, changed = tiny_model(family, **FAMILIES[family]), ""

    def further(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == changed:
            last = tensor.view(-1)[-1:]
            last.copy_(last.nextafter(torch.tensor(torch.inf)))
        return tensor

    names = written(monkeypatch, further)
    save_model(model, tmp_path / "whole")
    some = [name for number, name in enumerate(names) if "emb" in name or "wpe" in name or number % 8 == 7]
    for changed in some:  # noqa: B007 - `further` reads it
        with pytest.raises(UserError, match=r"must (hold the model's own weights; got|answer as) .*nothing was"):
            save_model(model, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_the_weight_is_named_and_minus_zero_is_another_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("bert", top="pretraining")
    written(monkeypatch, lambda name, tensor: -tensor if name == "cls.predictions.bias" else tensor)
    assert not model.head.bias.any()
    with pytest.raises(UserError, match=r"model's own weights; got another head\.bias;"):
        save_model(model, tmp_path / "model")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_what_is_rounded_is_compared_with_what_was_to_be_written(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model("gpt")
    save_model(model, tmp_path / "model", dtype=dtype)
    for name, weight in load_model(tmp_path / "model").named_parameters():
        assert torch.equal(weight, dict(model.named_parameters())[name].to(dtype).float()), name


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (tiny_tokenizer(49), "another one"),
        (Tokenizer(tiny_tokenizer()._raw, SpecialTokens({"eos": SPECIAL["sep"]}), kind="wordlevel"), "other special"),
    ],
)
def test_the_tokenizer_is_read_back(
    other: Tokenizer, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, write = tiny_model("gpt"), tiny_tokenizer(), Tokenizer.write_files
    save_model(model, tmp_path / "whole", tokenizer=tokenizer)
    assert load_tokenizer(tmp_path / "whole").sha256 == tokenizer.sha256
    monkeypatch.setattr(Tokenizer, "write_files", lambda self, folder, **keys: write(other, folder, **keys))
    with pytest.raises(UserError, match=f"must be the model's own; got {told}"):
        save_model(model, tmp_path / "model", tokenizer=tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
