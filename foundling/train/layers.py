"""Which layers of a pretrained body are trained, and how fast each of them learns."""

import re
from typing import Any

from torch import nn

from foundling.core.errors import UserError
from foundling.models.base import family_of
from foundling.train.finetune_recipe import Train

_LAYER = re.compile(r"^(?:body\.)?layers\.(\d+)\.")
_ABOVE = re.compile(r"^(body\.norm|norm|head)\b")
"""Of a body with a head on it, and of a decoder that answers by itself: what lies above the last layer."""


def height_of(name: str, num_layers: int) -> int:
    """How far above the embeddings a parameter lies: 0 for those below the first layer, layers + 1 for the head."""
    if found := _LAYER.match(name):
        return int(found[1]) + 1
    return num_layers + 1 if _ABOVE.match(name) else 0


def freeze(model: nn.Module, train: Train) -> None:
    """What the recipe does not train needs no gradient from here on. UserError: the model has fewer layers, or two
    stacks of them."""
    if train.unfreeze is not None:
        _body_layers(model)
    if train.layers == "all":
        return
    num_layers = len(_body_layers(model))
    top = 0 if train.layers == "none" else train.layers
    if top > num_layers:
        raise UserError(f"train.layers must be at most {num_layers}, the layers of the base", got=top)
    for name, parameter in model.named_parameters():
        if height_of(name, num_layers) < num_layers + 1 - top:
            parameter.requires_grad_(False)


def lr_factors(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """What the rates of a model with a head are multiplied by, by name pattern: less for each layer further down, more
    for what the head learns faster."""
    faster = getattr(getattr(model, "head", None), "lr_factors", {})
    found = {f"head.{name}": factor for name, factor in faster.items()}
    if layer_decay == 1.0:
        return found
    num_layers = len(_body_layers(model))
    heights = {name: height_of(name, num_layers) for name, _ in model.named_parameters()}
    lower = {name: height for name, height in heights.items() if height <= num_layers}
    return found | {name: layer_decay ** (num_layers + 1 - height) for name, height in lower.items()}


def _body_layers(model: Any) -> Any:
    if not hasattr(model, "layers") and not hasattr(model, "body"):
        raise UserError(
            "train.layers, train.unfreeze and train.layer_decay are of models with one stack of layers",
            got=f"a {family_of(model.config)} model",
            do="leave them out",
        )
    return model.blocks()
