"""What the formats of rotary decoders (Llama, Qwen3) have in common."""

from functools import partial
from typing import Any

from foundling.models.gpt import Config
from foundling.models.hub._attention import fuse, unfuse
from foundling.models.hub.base import INITIALIZER_RANGE, ConfigReader, Weight

EMBEDDING = "model.embed_tokens.weight"


def read_shared(keys: ConfigReader, *, head_width: int | None) -> dict[str, Any]:
    """Our config's values from the keys that both families have.

    head_width: what a missing `head_dim` means; None: width / heads. RMS norm's epsilon and the base of the rotary
    frequencies have the defaults of both families, 1e-6 and 10000.
    """
    keys.only("hidden_act", "silu")
    keys.only("attention_bias", False)
    keys.ignore("attention_dropout")  # of training; the weights compute without
    width, heads = keys.count("hidden_size"), keys.count("num_attention_heads")
    return {
        "math": "modern",
        "vocab_size": keys.count("vocab_size"),
        "layers": keys.count("num_hidden_layers"),
        "width": width,
        "heads": heads,
        "kv_heads": keys.count("num_key_value_heads", heads),
        "head_width": keys.count("head_dim", head_width or max(1, width // heads)),
        "mlp_width": keys.count("intermediate_size"),
        "max_positions": keys.count("max_position_embeddings"),
        "tied": keys.flag("tie_word_embeddings", False),
        "rope_theta": _rope_theta(keys),
        "norm_eps": keys.number("rms_norm_eps", 1e-6),
        "init_std": keys.init_std(),
    }


def _rope_theta(keys: ConfigReader) -> float:
    """The base of the frequencies, from `rope_parameters` (transformers 5) or `rope_theta` (before)."""
    theta = keys.number("rope_theta", 10_000.0)
    keys.only("partial_rotary_factor", 1.0)
    for key in ("rope_scaling", "rope_parameters"):
        value = keys.get(key, {})
        if not isinstance(value, dict):
            keys.fault(f"{key} must be a mapping; got {value!r}")
            continue
        given = dict(value)
        theta = given.pop("rope_theta", None) or theta
        kind = given.pop("rope_type", None) or given.pop("type", None) or "default"
        given.pop("type", None)
        if kind != "default":
            keys.fault(f"{key} must be of type 'default', which is what is computed; got {value!r}")
        elif given.pop("partial_rotary_factor", 1.0) != 1.0 or given:
            keys.fault(f"{key} must hold nothing but rope_type and rope_theta; got {value!r}")
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 0:
        keys.fault(f"rope_theta must be a positive number; got {theta!r}")
        return 10_000.0
    return float(theta)


def write_shared(config: Config) -> dict[str, Any]:
    """The keys that both families have. `rope_theta` stands twice: for transformers 5 and for older readers."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.inner_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.groups,
        "head_dim": config.key_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "initializer_range": config.init_std or INITIALIZER_RANGE,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tied,
    }


def decoder_weights(config: Config) -> list[Weight]:
    """Every parameter of a `modern` decoder, with the names that Llama gave them."""
    found = [Weight("embedding.weight", (EMBEDDING,)), Weight("norm.weight", ("model.norm.weight",))]
    join, split = partial(fuse, config=config), partial(unfuse, config=config)
    for i in range(config.layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        projections = tuple(f"{theirs}self_attn.{x}_proj.weight" for x in "qkv")
        found.append(Weight(f"{ours}attention.qkv.weight", projections, join, split))
        names = {
            "attention_norm": "input_layernorm",
            "attention.out": "self_attn.o_proj",
            "mlp_norm": "post_attention_layernorm",
            "mlp.gate": "mlp.gate_proj",
            "mlp.up": "mlp.up_proj",
            "mlp.down": "mlp.down_proj",
        }
        if config.qk_norm:
            names |= {"attention.q_norm": "self_attn.q_norm", "attention.k_norm": "self_attn.k_norm"}
        found += [Weight(f"{ours}{a}.weight", (f"{theirs}{b}.weight",)) for a, b in names.items()]
    if not config.tied:
        found.append(Weight("head.weight", ("lm_head.weight",)))
    return found
