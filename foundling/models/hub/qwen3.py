"""Qwen3 (Qwen team 2025, arXiv:2505.09388): `Qwen3ForCausalLM`. Here: math modern with qk_norm."""

from typing import Any

from foundling.core.config import validate
from foundling.models.gpt import Config
from foundling.models.hub import base
from foundling.models.hub._rotary import EMBEDDING, decoder_weights, read_shared, write_shared
from foundling.models.hub.base import ConfigReader, Weight


class Format(base.Format):
    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    base_prefix = "model."
    embedding = EMBEDDING

    def read_config(self, keys: ConfigReader, what: str) -> Config:
        values = {**read_shared(keys, head_width=128), "qk_norm": True}
        keys.only("use_sliding_window", False)
        keys.ignore("sliding_window", "max_window_layers")  # they say nothing while use_sliding_window is false
        kinds = keys.get("layer_types", [])
        if not isinstance(kinds, list) or set(map(str, kinds)) - {"full_attention"}:
            keys.fault(f"layer_types must all be 'full_attention', which is what is computed; got {kinds!r}")
        keys.finish()
        config: Config = validate(Config, values, what)
        return config

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config) and not config.is_ours and config.math == "modern" and config.qk_norm

    def write_config(self, config: Config) -> dict[str, Any]:
        return {
            **write_shared(config),
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": config.layers,
            "layer_types": ["full_attention"] * config.layers,
        }

    def weights(self, config: Config) -> list[Weight]:
        return decoder_weights(config)
