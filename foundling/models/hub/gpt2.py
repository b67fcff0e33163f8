"""GPT-2 (Radford et al. 2019): `GPT2LMHeadModel`. Its matrices lie transposed, [in, out].

Dropout rates are read past: they belong to how a model was trained, not to what its weights compute.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foundling.core.config import validate
from foundling.models.gpt import Config
from foundling.models.hub import base
from foundling.models.hub._attention import fuse, unfuse
from foundling.models.hub.base import INITIALIZER_RANGE, ConfigReader, Weight


def _transposed(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0].t()


def _transpose(ours: Tensor) -> tuple[Tensor]:
    return (ours.t(),)


def _fuse_weight(theirs: Sequence[Tensor], config: Config) -> Tensor:
    return fuse(theirs[0].t().chunk(3), config)


def _unfuse_weight(ours: Tensor, config: Config) -> tuple[Tensor]:
    return (torch.cat(unfuse(ours, config)).t(),)


def _fuse_bias(theirs: Sequence[Tensor], config: Config) -> Tensor:
    return fuse(theirs[0].chunk(3), config)


def _unfuse_bias(ours: Tensor, config: Config) -> tuple[Tensor]:
    return (torch.cat(unfuse(ours, config)),)


class Format(base.Format):
    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    base_prefix = "transformer."
    embedding = "transformer.wte.weight"
    unused_weights = (r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",)  # the causal mask

    def read_config(self, keys: ConfigReader, what: str) -> Config:
        keys.only("activation_function", "gelu_new", "gelu_pytorch_tanh")  # two names of one function
        keys.only("scale_attn_weights", True)
        keys.only("scale_attn_by_inverse_layer_idx", False)
        keys.only("reorder_and_upcast_attn", False)
        keys.ignore("resid_pdrop", "embd_pdrop", "attn_pdrop", "n_ctx")
        keys.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels")
        keys.ignore("summary_first_dropout")  # a head that this architecture does not have
        width = keys.count("n_embd", 768)
        values = {
            "math": "gpt2",
            "vocab_size": keys.count("vocab_size", 50257),
            "layers": keys.count("n_layer", 12),
            "width": width,
            "heads": keys.count("n_head", 12),
            "mlp_width": keys.count("n_inner", 4 * width),
            "max_positions": keys.count("n_positions", 1024),
            "tied": keys.flag("tie_word_embeddings", True),
            "norm_eps": keys.number("layer_norm_epsilon", 1e-5),
            "init_std": keys.init_std(),
        }
        keys.finish()
        config: Config = validate(Config, values, what)
        return config

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config) and not config.is_ours and config.math == "gpt2"

    def write_config(self, config: Config) -> dict[str, Any]:
        return {
            "vocab_size": config.vocab_size,
            "n_positions": config.max_positions,
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_inner": config.inner_width,
            "activation_function": "gelu_new",
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "layer_norm_epsilon": config.norm_eps,
            "initializer_range": config.init_std or INITIALIZER_RANGE,
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "reorder_and_upcast_attn": False,
            "tie_word_embeddings": config.tied,
        }

    def weights(self, config: Config) -> list[Weight]:
        found = [
            Weight("embedding.weight", (self.embedding,)),
            Weight("positions.weight", ("transformer.wpe.weight",)),
            Weight("norm.weight", ("transformer.ln_f.weight",)),
            Weight("norm.bias", ("transformer.ln_f.bias",)),
        ]
        for i in range(config.layers):
            found += _layer_weights(f"layers.{i}.", f"transformer.h.{i}.", config)
        if not config.tied:
            found.append(Weight("head.weight", (self.head,)))
        return found


def _layer_weights(ours: str, theirs: str, config: Config) -> list[Weight]:
    found = []
    for our_norm, their_norm in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
        for kind in ("weight", "bias"):
            found.append(Weight(f"{ours}{our_norm}.{kind}", (f"{theirs}{their_norm}.{kind}",)))
    for linear, conv in (("attention.out", "attn.c_proj"), ("mlp.up", "mlp.c_fc"), ("mlp.down", "mlp.c_proj")):
        found.append(Weight(f"{ours}{linear}.weight", (f"{theirs}{conv}.weight",), _transposed, _transpose))
        found.append(Weight(f"{ours}{linear}.bias", (f"{theirs}{conv}.bias",)))
    for kind, join, split in (("weight", _fuse_weight, _unfuse_weight), ("bias", _fuse_bias, _unfuse_bias)):
        name = f"{theirs}attn.c_attn.{kind}"
        found.append(
            Weight(f"{ours}attention.qkv.{kind}", (name,), partial(join, config=config), partial(split, config=config))
        )
    return found
