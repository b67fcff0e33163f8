"""XLNet (Yang et al. 2019, arXiv:1906.08237): `XLNetLMHeadModel`. Its projections lie as [in, heads, width of a head].

Dropout rates and the lengths of memory are read past: they belong to how a model is run, not to what its weights
compute. There is no key for the longest row; ours is called max_positions, and transformers reads past it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foundling.core.config import validate
from foundling.models.hub import base
from foundling.models.hub.base import INITIALIZER_RANGE, ConfigReader, Weight
from foundling.models.xlnet import Config

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}
"""Theirs to ours."""
_RELEASED_LENGTH = 512
"""Longest row that the released models were trained with."""


class Format(base.Format):
    model_type = "xlnet"
    architecture = "XLNetLMHeadModel"
    base_prefix = "transformer."
    embedding = "transformer.word_embedding.weight"
    head = "lm_loss.weight"
    pipeline = None
    auto_class = "XLNetLMHeadModel"

    def read_config(self, keys: ConfigReader, what: str) -> Config:
        keys.only("attn_type", "bi")
        keys.only("untie_r", True)
        keys.only("bi_data", False)  # true: the second half of a batch is read as if it were reversed
        keys.ignore("dropout", "mem_len", "reuse_len", "use_mems_eval", "use_mems_train", "same_length")
        keys.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout")
        keys.ignore("start_n_top", "end_n_top", "n_token")  # heads that this architecture does not have; an old name
        activation = keys.get("ff_activation", "gelu")
        if not isinstance(activation, str) or activation not in _ACTIVATIONS:
            keys.fault(f"ff_activation must be one of {', '.join(_ACTIVATIONS)}; got {activation!r}")
        width, heads = keys.count("d_model", 1024), keys.count("n_head", 16)
        if keys.count("d_head", max(1, width // heads)) * heads != width:
            keys.fault(f"d_head must be d_model / n_head; got {keys.get('d_head')} for {width} / {heads}")
        clamp = keys.get("clamp_len", -1)
        if isinstance(clamp, bool) or not isinstance(clamp, int):
            keys.fault(f"clamp_len must be a whole number; got {clamp!r}")
            clamp = -1
        values = {
            "vocab_size": keys.count("vocab_size", 32000),
            "layers": keys.count("n_layer", 24),
            "width": width,
            "heads": heads,
            "mlp_width": keys.count("d_inner", 4096),
            "activation": _ACTIVATIONS.get(activation, "gelu"),
            "clamp": clamp if clamp > 0 else None,
            "max_positions": keys.count("max_positions", _RELEASED_LENGTH),
            "tied": keys.flag("tie_word_embeddings", True),
            "norm_eps": keys.number("layer_norm_eps", 1e-12),
            "init_std": keys.number("initializer_range", INITIALIZER_RANGE),
        }
        keys.finish()
        config: Config = validate(Config, values, what)
        return config

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config) and config.positions == "relative"

    def write_config(self, config: Config) -> dict[str, Any]:
        theirs = {ours: name for name, ours in _ACTIVATIONS.items()}
        return {
            "vocab_size": config.vocab_size,
            "n_layer": config.layers,
            "d_model": config.width,
            "n_head": config.heads,
            "d_head": config.key_width,
            "d_inner": config.inner_width,
            "ff_activation": theirs[config.activation],
            "attn_type": "bi",
            "untie_r": True,
            "bi_data": False,
            "clamp_len": config.clamp or -1,
            "same_length": False,
            "mem_len": None,
            "reuse_len": None,
            "use_mems_eval": True,
            "use_mems_train": False,
            "dropout": 0.0,
            "layer_norm_eps": config.norm_eps,
            "initializer_range": config.init_std,
            "tie_word_embeddings": config.tied,
            "max_positions": config.max_positions,
        }

    def weights(self, config: Config) -> list[Weight]:
        found = [
            Weight("embedding.weight", (self.embedding,)),
            Weight("query", ("transformer.mask_emb",), lambda theirs: theirs[0][0], lambda ours: (ours[None],)),
        ]
        for i in range(config.layers):
            found += _layer_weights(f"layers.{i}.", f"transformer.layer.{i}.", config)
        if config.top == "lm":
            found.append(Weight("head.bias", ("lm_loss.bias",)))
        if config.top == "lm" and not config.tied:
            found.append(Weight("head.weight", (self.head,)))
        return found


def _layer_weights(ours: str, theirs: str, config: Config) -> list[Weight]:
    attention = f"{theirs}rel_attn."
    found = [
        Weight(
            f"{ours}attention.{our_name}.weight", (f"{attention}{their_name}",), _flat, partial(_heads, config=config)
        )
        for our_name, their_name in (("q", "q"), ("distance", "r"))
    ]
    found += [
        Weight(
            f"{ours}attention.kv.weight", (f"{attention}k", f"{attention}v"), _fuse, partial(_unfuse, config=config)
        ),
        Weight(f"{ours}attention.out.weight", (f"{attention}o",), _rows, partial(_rows_by_head, config=config)),
        Weight(f"{ours}attention.content_bias", (f"{attention}r_w_bias",)),
        Weight(f"{ours}attention.distance_bias", (f"{attention}r_r_bias",)),
        Weight(f"{ours}attention.segment_bias", (f"{attention}r_s_bias",)),
        Weight(f"{ours}attention.segment", (f"{attention}seg_embed",)),
    ]
    named = {
        "attention_norm": "rel_attn.layer_norm",
        "mlp.up": "ff.layer_1",
        "mlp.down": "ff.layer_2",
        "mlp_norm": "ff.layer_norm",
    }
    for our_name, their_name in named.items():
        for kind in ("weight", "bias"):
            found.append(Weight(f"{ours}{our_name}.{kind}", (f"{theirs}{their_name}.{kind}",)))
    return found


# Shapes: D = width, H = heads, K = width of a head. Theirs are [D, H, K].


def _flat(theirs: Sequence[Tensor]) -> Tensor:
    """To [H K, D]."""
    return theirs[0].flatten(1).t()


def _heads(ours: Tensor, config: Config) -> tuple[Tensor]:
    return (ours.t().unflatten(1, (config.heads, config.key_width)),)


def _rows(theirs: Sequence[Tensor]) -> Tensor:
    """To [D, H K]."""
    return theirs[0].flatten(1)


def _rows_by_head(ours: Tensor, config: Config) -> tuple[Tensor]:
    return (ours.unflatten(1, (config.heads, config.key_width)),)


def _fuse(theirs: Sequence[Tensor]) -> Tensor:
    """Keys and values to [H 2 K, D], by head."""
    return torch.stack(list(theirs), dim=2).flatten(1).t()


def _unfuse(ours: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    k, v = ours.t().unflatten(1, (config.heads, 2, config.key_width)).unbind(2)
    return k, v
