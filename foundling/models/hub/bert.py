"""BERT (Devlin et al. 2019, arXiv:1810.04805): `BertForPreTraining`, `BertForMaskedLM`, and `BertModel`, an encoder
without heads such as MiniLM's. Here: math bert.

config.json does not tell all: a file under the name BertForMaskedLM may hold the next-sentence head as well (the first
BERT on the hub does), one of BertModel may lack the pooler. So the weights in the file decide which heads there are.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from foundling.core.config import validate
from foundling.core.log import logger
from foundling.data.batch import Batch
from foundling.models.bert import Config, Top
from foundling.models.hub import base
from foundling.models.hub._attention import fuse, unfuse
from foundling.models.hub.base import ConfigReader, Weight

_ARCHITECTURES: dict[str, Top] = {
    "BertForPreTraining": "pretraining",
    "BertForMaskedLM": "masked",
    "BertModel": "pooler",
}
_OF_THE_TOP = {"bert.pooler.": ("pooler", "pretraining"), "cls.seq_relationship.": ("pretraining",)}
"""Beginnings of names, and the tops that have such weights."""


class Format(base.Format):
    model_type = "bert"
    architecture = "BertForPreTraining"
    other_architectures = ("BertForMaskedLM", "BertModel")
    base_prefix = "bert."
    embedding = "bert.embeddings.word_embeddings.weight"
    head = "cls.predictions.decoder.weight"
    copies: ClassVar[dict[str, str]] = {"cls.predictions.decoder.bias": "cls.predictions.bias"}
    renames = ((r"\.LayerNorm\.gamma$", ".LayerNorm.weight"), (r"\.LayerNorm\.beta$", ".LayerNorm.bias"))
    unused_weights = (r"bert\.embeddings\.(position|token_type)_ids",)  # 0, 1, 2, ... and zeros
    token_roles = ("pad",)
    pipeline = "fill-mask"
    auto_class = "AutoModelForPreTraining"

    def read_config(self, keys: ConfigReader, what: str) -> Config:
        keys.only("hidden_act", "gelu")
        keys.only("position_embedding_type", "absolute")
        keys.only("is_decoder", False)
        keys.only("tie_word_embeddings", True)
        keys.ignore("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")  # of training
        keys.ignore("directionality", *(f"pooler_{x}" for x in _POOLER_KEYS))  # of the first BERTs: never read
        values = {
            "math": "bert",
            "top": _ARCHITECTURES[(keys.get("architectures") or [self.architecture])[0]],
            "vocab_size": keys.count("vocab_size"),
            "layers": keys.count("num_hidden_layers"),
            "width": keys.count("hidden_size"),
            "heads": keys.count("num_attention_heads"),
            "mlp_width": keys.count("intermediate_size"),
            "max_positions": keys.count("max_position_embeddings"),
            "segments": keys.count("type_vocab_size", 2),
            "norm_eps": keys.number("layer_norm_eps", 1e-12),
            "init_std": keys.number("initializer_range", base.INITIALIZER_RANGE),
        }
        keys.finish()
        config: Config = validate(Config, values, what)
        return config

    def fitted(self, config: Config, names: set[str]) -> tuple[Config, set[str]]:
        def held(prefix: str) -> bool:
            return any(name.startswith(prefix) for name in names)

        top: Top = config.top
        if held("cls.predictions.") and top != "pretraining":
            top = "pretraining" if held("cls.seq_relationship.") and held("bert.pooler.") else "masked"
        elif top == "pooler" and not held("bert.pooler."):
            top = "none"
        useless = {
            name
            for name in names
            for prefix, tops in _OF_THE_TOP.items()
            if name.startswith(prefix) and top not in tops
        }
        if top in ("none", "pooler"):
            logger.info("an encoder without a masked-language head: it gives hidden states, and can be trained further")
        return config.model_copy(update={"top": top}), useless

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config) and config.math == "bert"

    def architecture_of(self, config: Config) -> str:
        top = "pooler" if config.top == "none" else config.top
        return next(name for name, its in _ARCHITECTURES.items() if its == top)

    def file_name(self, config: Config, name: str) -> str:
        return name.removeprefix(self.base_prefix) if config.top in ("none", "pooler") else name

    def auto_class_of(self, config: Config) -> str:
        known = {"masked": "AutoModelForMaskedLM", "pretraining": self.auto_class}
        return known.get(config.top, "AutoModel")

    def auto_arguments_of(self, config: Config) -> Mapping[str, Any]:
        return {"add_pooling_layer": False} if config.top == "none" else {}

    def write_config(self, config: Config) -> dict[str, Any]:
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "intermediate_size": config.inner_width,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": config.max_positions,
            "type_vocab_size": config.segments,
            "initializer_range": config.init_std,
            "layer_norm_eps": config.eps,
            "position_embedding_type": "absolute",
            "tie_word_embeddings": True,
        }

    def weights(self, config: Config) -> list[Weight]:
        found = [
            Weight("embedding.weight", (self.embedding,)),
            Weight("positions.weight", ("bert.embeddings.position_embeddings.weight",)),
            Weight("segments.weight", ("bert.embeddings.token_type_embeddings.weight",)),
            *_pair("embedding_norm", "bert.embeddings.LayerNorm"),
        ]
        for i in range(config.layers):
            found += _layer_weights(f"layers.{i}.", f"bert.encoder.layer.{i}.", config)
        if config.top in ("masked", "pretraining"):
            found += _pair("head.dense", "cls.predictions.transform.dense")
            found += _pair("head.norm", "cls.predictions.transform.LayerNorm")
            found.append(Weight("head.bias", ("cls.predictions.bias",)))
        if config.top in ("pooler", "pretraining"):
            found += _pair("pooler", "bert.pooler.dense")
        if config.top == "pretraining":
            found += _pair("next", "cls.seq_relationship")
        return found

    def probe(self, model: Any, batch: Batch) -> list[Tensor]:
        if model.config.top in ("masked", "pretraining"):
            return super().probe(model, batch)
        return [model.encode(batch) if model.pooler is None else model.pool(batch)]


_POOLER_KEYS = ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head", "type")


def _pair(ours: str, theirs: str) -> list[Weight]:
    return [Weight(f"{ours}.{kind}", (f"{theirs}.{kind}",)) for kind in ("weight", "bias")]


def _layer_weights(ours: str, theirs: str, config: Config) -> list[Weight]:
    join, split = partial(fuse, config=config), partial(unfuse, config=config)
    found = []
    for kind in ("weight", "bias"):
        projections = tuple(f"{theirs}attention.self.{x}.{kind}" for x in ("query", "key", "value"))
        found.append(Weight(f"{ours}attention.qkv.{kind}", projections, join, split))
    names = {
        "attention.out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "mlp.up": "intermediate.dense",
        "mlp.down": "output.dense",
        "mlp_norm": "output.LayerNorm",
    }
    return found + [weight for a, b in names.items() for weight in _pair(f"{ours}{a}", f"{theirs}{b}")]
