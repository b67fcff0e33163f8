"""Folders in our own layout: models that transformers has no class for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from foundling.core.errors import UserError
from foundling.models import gpt, seq2seq
from foundling.models.hub import format_for, load_config, load_model, save_model
from foundling.nn.ngrams import Ngrams
from tests.tiny import tiny_tokenizer

VALUES: dict[str, Any] = {"vocab_size": 61, "layers": 2, "width": 24, "heads": 4, "max_positions": 32}
CONFIGS: dict[str, Any] = {
    "seq2seq-2017": seq2seq.Config(**VALUES, math="2017"),
    "seq2seq-modern": seq2seq.Config(**VALUES, kv_heads=2, tied=False, encoder_layers=1, init_std=0.02),
    "prefix-modern": gpt.Config(**VALUES, kv_heads=2, prefix=True),
    "prefix-gpt2": gpt.Config(**VALUES, math="gpt2", prefix=True, tied=False),
    "ngrams": gpt.Config(**VALUES, ngrams=Ngrams(orders=(2, 4), rows=50)),
    "ngrams-prefix": gpt.Config(**VALUES, math="gpt2", prefix=True, ngrams=Ngrams()),
}


def model_of(name: str) -> Any:
    model = CONFIGS[name].build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_save_and_load_give_the_same_bits(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = model_of(name)
    with caplog.at_level("INFO", logger="foundling"):
        save_model(model, tmp_path / "model", tokenizer=tiny_tokenizer())
    assert "transformers has no class that computes it" in caplog.text
    back = load_model(tmp_path / "model")
    assert back.config == model.config == load_config(tmp_path / "model")
    for key, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
    described = json.loads((tmp_path / "model" / "config.json").read_text())
    assert described["model_type"] == format_for(model.config).model_type
    assert described["eos_token_id"] == tiny_tokenizer().eos_id
    card = (tmp_path / "model" / "README.md").read_text()
    assert "library_name: foundling" in card
    assert "transformers" not in card


@pytest.mark.parametrize("name", ["seq2seq-modern", "prefix-modern", "prefix-gpt2", "ngrams"])
def test_transformers_refuses_what_it_would_compute_otherwise(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(model_of(name), tmp_path / "model")
    with pytest.raises((ValueError, KeyError), match="foundling-"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(("name", "key"), [("prefix-modern", "prefix"), ("ngrams", "ngrams")])
def test_without_what_is_its_own_a_model_is_one_of_transformers(name: str, key: str) -> None:
    config = CONFIGS[name]
    assert format_for(config).model_type == "foundling-gpt"
    assert format_for(config.model_copy(update={key: type(config).model_fields[key].default})).model_type == "qwen3"


def test_faults_of_a_folder_are_told(tmp_path: Path) -> None:
    save_model(model_of("seq2seq-modern"), tmp_path / "model")
    (tmp_path / "model" / "manifest.json").unlink()
    path = tmp_path / "model" / "config.json"
    good = json.loads(path.read_text())
    for change, told in (
        ({"layers": 3}, r"missing: decoder\.2\.attention"),
        ({"encoder_layers": None}, r"missing: encoder\.1\.attention"),
        ({"math": "2018"}, "math"),
        ({"rope_scaling": 2}, "rope_scaling is not known here"),
        ({"model_type": "foundling-gpt"}, "architectures must be"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(UserError, match=told):
            load_model(tmp_path / "model")
