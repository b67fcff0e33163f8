"""Losses and the gradients of all weights of two models, ours and transformers', side by side."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from foundling.models.hub.base import Weight

ROUNDING = 1e-5
"""A gradient smaller than this share of the gradient of all weights is compared with that share instead."""


def worst_gradient(weights: Sequence[Weight], ours: Mapping[str, Tensor], peer: nn.Module) -> dict[str, float]:
    """The largest relative difference, of norms, by the peer's name of the weight it is of.

    weights: the format's, of the model's config. ours: by our names. Each of our gradients is compared.
    """
    theirs = {name: parameter.grad for name, parameter in peer.named_parameters()}
    total = sum(float(grad.norm()) ** 2 for grad in theirs.values() if grad is not None) ** 0.5
    assert ours.keys() == {weight.ours for weight in weights}
    found = {}
    for weight in weights:
        for name, part in zip(weight.theirs, weight.split(ours[weight.ours]), strict=True):
            grad = theirs[name]
            if grad is not None:  # of XLNet's segments nothing but rounding, where rows have one or none
                found[name] = float((part - grad).norm() / max(float(grad.norm()), ROUNDING * total))
    worst = max(found, key=lambda name: found[name])
    return {f"worst of {len(found)} gradients ({worst})": found[worst]}


def apart(ours: Mapping[str, Tensor], peer: Tensor) -> dict[str, float]:
    """The relative difference of each of our losses from the peer's, by name."""
    return {name: abs(loss.item() - peer.item()) / peer.item() for name, loss in ours.items()}
