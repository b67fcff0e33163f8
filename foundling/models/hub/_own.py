"""Our own layout, for models that transformers has no class for: config.json holds our config's fields, the file our
parameters' names. The model_type begins with `foundling-`, so that no other reader computes something else from it."""

from typing import Any, ClassVar

import torch
from torch import nn

from foundling.core.config import Strict, resolved, validate
from foundling.core.log import logger
from foundling.models.hub import base
from foundling.models.hub.base import ConfigReader, Weight


class OwnFormat(base.Format):
    """A format whose keys and names are ours."""

    config_class: ClassVar[type[Strict]]
    """The family's Config."""
    base_prefix = ""
    embedding = "embedding.weight"
    head = "head.weight"
    auto_class = None

    def read_config(self, keys: ConfigReader, what: str) -> Any:
        values = {name: keys.get(name) for name in self.config_class.model_fields}
        keys.finish()
        return validate(self.config_class, {k: v for k, v in values.items() if v is not None}, what)

    def write_config(self, config: Any) -> dict[str, Any]:
        logger.info("model: in our own layout (%s); transformers has no class that computes it", self.model_type)
        return resolved(config)

    def weights(self, config: Any) -> list[Weight]:
        with torch.device("meta"):
            model: nn.Module = config.build()
        return [Weight(name, (name,)) for name, _ in model.named_parameters()]
