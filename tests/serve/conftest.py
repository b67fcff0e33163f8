from pathlib import Path

import pytest
import torch

from foundling.models.gpt import Config, Gpt
from foundling.models.hub import save_model
from foundling.tokenizers.base import Tokenizer
from foundling.tokenizers.bpe import Config as BpeConfig

TEXT = "The old man went to the sea. Ärger über Öl! 大象在河边喝水。 No one knew why the sea was blue.\n" * 20


def small_model(seed: int = 0, std: float = 0.5, **keys: object) -> Gpt:
    """Random weights that are spread enough for logits to differ clearly."""
    values = {"vocab_size": 300, "layers": 2, "width": 24, "heads": 4, "kv_heads": 2, "max_positions": 40, **keys}
    if values.get("math") == "gpt2":
        values["kv_heads"] = None
    model = Config.model_validate(values).build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, std, generator=generator)
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return BpeConfig(kind="bpe", vocab_size=300).build().train([TEXT])


@pytest.fixture
def model_folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_model(small_model(), tmp_path / "run" / "model", tokenizer=tokenizer)
    return tmp_path / "run" / "model"
