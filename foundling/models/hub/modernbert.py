"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): `ModernBertForMaskedLM`, and `ModernBertModel`, the encoder alone.
Here: math modern of models/bert.py."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foundling.core.config import validate
from foundling.core.log import logger
from foundling.data.batch import Batch
from foundling.models.bert import Config
from foundling.models.hub import base
from foundling.models.hub._attention import fuse, unfuse
from foundling.models.hub.base import ConfigReader, Weight
from foundling.nn.mlp import gate_block

_THETAS = {"full_attention": 160_000.0, "sliding_attention": 10_000.0}
_OLD_THETAS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}


class Format(base.Format):
    model_type = "modernbert"
    architecture = "ModernBertForMaskedLM"
    other_architectures = ("ModernBertModel",)
    base_prefix = "model."
    embedding = "model.embeddings.tok_embeddings.weight"
    head = "decoder.weight"
    token_roles = ("bos", "eos", "pad", "cls", "sep")
    pipeline = "fill-mask"
    auto_class = "AutoModelForMaskedLM"

    def read_config(self, keys: ConfigReader, what: str) -> Config:
        keys.only("hidden_activation", "gelu")
        keys.only("classifier_activation", "gelu")
        for key in ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"):
            keys.only(key, False)
        keys.only("decoder_bias", True)
        keys.only("tie_word_embeddings", True)
        keys.ignore("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout")  # of training
        keys.ignore("initializer_cutoff_factor", "deterministic_flash_attn", "reference_compile", "classifier_pooling")
        keys.ignore("sparse_prediction", "sparse_pred_ignore_index", "repad_logits_with_grad")  # the same logits
        keys.ignore("layer_norm_eps", "position_embedding_type", "cls_token_id")  # never read; the tokenizer knows
        layers, (theta, local_theta) = keys.count("num_hidden_layers"), _thetas(keys)
        values = {
            "math": "modern",
            "top": "none" if keys.get("architectures") == ["ModernBertModel"] else "masked",
            "vocab_size": keys.count("vocab_size"),
            "layers": layers,
            "width": keys.count("hidden_size"),
            "heads": keys.count("num_attention_heads"),
            "mlp_width": keys.count("intermediate_size"),
            "max_positions": keys.count("max_position_embeddings"),
            "global_every": _global_every(keys, layers),
            "window": keys.count("local_attention", 128),
            "rope_theta": theta,
            "local_rope_theta": local_theta,
            "norm_eps": keys.number("norm_eps", 1e-5),
            "init_std": keys.number("initializer_range", base.INITIALIZER_RANGE),
        }
        keys.finish()
        config: Config = validate(Config, values, what)
        return config

    def fitted(self, config: Config, names: set[str]) -> tuple[Config, set[str]]:
        if config.top == "none" and any(name.startswith("head.") for name in names):
            config = config.model_copy(update={"top": "masked"})
        if config.top == "none":
            logger.info("an encoder without a masked-language head: it gives hidden states, and can be trained further")
        return config, set()

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config) and config.math == "modern"

    def architecture_of(self, config: Config) -> str:
        return "ModernBertModel" if config.top == "none" else self.architecture

    def auto_class_of(self, config: Config) -> str:
        return "AutoModel" if config.top == "none" else self.auto_class

    def file_name(self, config: Config, name: str) -> str:
        return name.removeprefix(self.base_prefix) if config.top == "none" else name

    def write_config(self, config: Config) -> dict[str, Any]:
        thetas = {"full_attention": config.rope_theta, "sliding_attention": config.local_rope_theta}
        kinds = ["full_attention" if config.is_global(i) else "sliding_attention" for i in range(config.layers)]
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "intermediate_size": config.inner_width,
            "hidden_activation": "gelu",
            "classifier_activation": "gelu",
            "max_position_embeddings": config.max_positions,
            "layer_types": kinds,
            "global_attn_every_n_layers": config.global_every,
            "local_attention": config.window,
            "rope_parameters": {kind: {"rope_type": "default", "rope_theta": t} for kind, t in thetas.items()},
            **{_OLD_THETAS[kind]: theta for kind, theta in thetas.items()},
            "norm_eps": config.eps,
            "initializer_range": config.init_std,
            **dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), False),
            **dict.fromkeys(("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"), 0.0),
            "decoder_bias": True,
            "tie_word_embeddings": True,
        }

    def weights(self, config: Config) -> list[Weight]:
        found = [
            Weight("embedding.weight", (self.embedding,)),
            Weight("embedding_norm.weight", ("model.embeddings.norm.weight",)),
            Weight("norm.weight", ("model.final_norm.weight",)),
        ]
        for i in range(config.layers):
            found += _layer_weights(i, config)
        if config.top == "masked":
            found += [Weight(f"head.{x}.weight", (f"head.{x}.weight",)) for x in ("dense", "norm")]
            found.append(Weight("head.bias", ("decoder.bias",)))
        return found

    def probe(self, model: Any, batch: Batch) -> list[Tensor]:
        return super().probe(model, batch) if model.config.top == "masked" else [model.encode(batch)]


def _global_every(keys: ConfigReader, layers: int) -> int:
    """How many layers lie between two of global attention, from `layer_types` or the older key."""
    every = keys.count("global_attn_every_n_layers", 3)
    kinds = keys.get("layer_types")
    if kinds is None:
        return every
    for number in (every, *range(1, layers + 1)):
        if kinds == ["sliding_attention" if i % number else "full_attention" for i in range(layers)]:
            return number
    keys.fault(f"layer_types must name every n-th layer of {layers} 'full_attention', from the first on; got {kinds!r}")
    return every


def _thetas(keys: ConfigReader) -> tuple[float, float]:
    """Bases of the rotary frequencies, global and local, from `rope_parameters` (transformers 5) or the older keys."""
    found = {kind: keys.number(old, _THETAS[kind]) for kind, old in _OLD_THETAS.items()}
    keys.only("rope_scaling", None)
    given = keys.get("rope_parameters", {})
    if not isinstance(given, dict) or set(given) - set(_THETAS):
        keys.fault(f"rope_parameters must be of full_attention and sliding_attention; got {given!r}")
        return found["full_attention"], found["sliding_attention"]
    for kind, values in given.items():
        if not isinstance(values, dict | None):
            keys.fault(f"rope_parameters must hold settings of {kind}; got {values!r}")
            continue
        rest = dict(values or {})
        theta = rest.pop("rope_theta", None) or found[kind]
        if rest.pop("rope_type", "default") != "default" or rest.pop("partial_rotary_factor", 1.0) != 1.0 or rest:
            keys.fault(f"rope_parameters must be of type 'default', which is what is computed; got {values!r}")
        elif isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 0:
            keys.fault(f"rope_theta must be a positive number; got {theta!r}")
        else:
            found[kind] = float(theta)
    return found["full_attention"], found["sliding_attention"]


def _layer_weights(number: int, config: Config) -> list[Weight]:
    ours, theirs = f"layers.{number}.", f"model.layers.{number}."
    names = {"attention.out": "attn.Wo", "mlp_norm": "mlp_norm", "mlp.down": "mlp.Wo"}
    if number:
        names["attention_norm"] = "attn_norm"
    return [
        Weight(
            f"{ours}attention.qkv.weight",
            (f"{theirs}attn.Wqkv.weight",),
            lambda parts: fuse(parts[0].chunk(3), config),
            lambda fused: (torch.cat(unfuse(fused, config)),),
        ),
        Weight(
            f"{ours}mlp.gated.weight",
            (f"{theirs}mlp.Wi.weight",),
            partial(_in_blocks, block=gate_block(config.inner_width)),
            partial(_in_halves, block=gate_block(config.inner_width)),
        ),
        *(Weight(f"{ours}{a}.weight", (f"{theirs}{b}.weight",)) for a, b in names.items()),
    ]


def _in_blocks(parts: Sequence[Tensor], block: int) -> Tensor:
    """All gates, then all units [2 F, D], to blocks of gates and their units."""
    return parts[0].unflatten(0, (2, -1, block)).transpose(0, 1).flatten(0, 2)


def _in_halves(gated: Tensor, block: int) -> tuple[Tensor]:
    return (gated.unflatten(0, (-1, 2, block)).transpose(0, 1).flatten(0, 2),)
