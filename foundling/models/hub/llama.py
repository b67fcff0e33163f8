"""Llama (Touvron et al. 2023, arXiv:2302.13971): `LlamaForCausalLM`. Here: math modern without qk_norm."""

from typing import Any

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.models.gpt import Config
from foundling.models.hub import base
from foundling.models.hub._rotary import EMBEDDING, decoder_weights, read_shared, write_shared
from foundling.models.hub.base import ConfigReader, Weight


class Format(base.Format):
    model_type = "llama"
    architecture = "LlamaForCausalLM"
    base_prefix = "model."
    embedding = EMBEDDING
    unused_weights = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)  # computed from rope_theta

    def read_config(self, keys: ConfigReader, what: str) -> Config:
        keys.only("mlp_bias", False)
        keys.ignore("pretraining_tp")  # how products were cut up in pretraining: the same sums
        values = {**read_shared(keys, head_width=None), "qk_norm": False}
        keys.finish()
        config: Config = validate(Config, values, what)
        return config

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config) and not config.is_ours and config.math == "modern" and not config.qk_norm

    def write_config(self, config: Config) -> dict[str, Any]:
        if config.width % config.heads:
            raise UserError(
                "the width of a Llama model must be a multiple of its heads, or transformers refuses it",
                got=f"width {config.width}, heads {config.heads}",
                do="choose a width that is, or set qk_norm: true (Qwen3)",
            )
        return {**write_shared(config), "mlp_bias": False, "pretraining_tp": 1}

    def weights(self, config: Config) -> list[Weight]:
        return decoder_weights(config)
