"""XLNet with rotary positions (models/xlnet.py): transformers has no class that computes it."""

from typing import Any

from foundling.models.hub._own import OwnFormat
from foundling.models.xlnet import Config


class Format(OwnFormat):
    model_type = "foundling-xlnet"
    architecture = "FoundlingXLNet"
    config_class = Config
    pipeline = None

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config) and config.positions == "rotary"
