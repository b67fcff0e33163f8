"""A decoder that transformers has no class for (models/gpt.py): one that was trained with a prefix, or reads n-grams.

The other weights lie as in GPT-2, Llama or Qwen3, but those classes read a prompt causally, and tokens alone, which is
another function. So it has a model_type that only we read.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from foundling.data.batch import Batch
from foundling.models.gpt import Config
from foundling.models.hub._own import OwnFormat


class Format(OwnFormat):
    model_type = "foundling-gpt"
    architecture = "FoundlingGpt"
    config_class = Config

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config) and config.is_ours

    def probe(self, model: Any, batch: Batch) -> list[Tensor]:
        """Where there is a prefix, it is half of each row."""
        halves_R = (batch.bounds_R1.diff() // 2).to(torch.int32) if model.config.prefix else None
        return super().probe(model, replace(batch, prefix_R=halves_R))
