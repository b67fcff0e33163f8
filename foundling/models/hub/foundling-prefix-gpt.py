"""A decoder that was trained with a prefix (models/gpt.py, `prefix: true`).

Its weights lie as in GPT-2, Llama or Qwen3, but those classes of transformers read a prompt causally, which is another
function. So it has a model_type that only we read.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from foundling.data.batch import Batch
from foundling.models.gpt import Config
from foundling.models.hub._own import OwnFormat


class Format(OwnFormat):
    model_type = "foundling-prefix-gpt"
    architecture = "FoundlingPrefixGpt"
    config_class = Config

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config) and config.prefix

    def probe(self, model: Any, batch: Batch) -> list[Tensor]:
        """Half of each row is a prefix."""
        halves_R = (batch.bounds_R1.diff() // 2).to(torch.int32)
        return super().probe(model, replace(batch, prefix_R=halves_R))
