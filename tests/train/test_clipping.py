"""Gradients are clipped in the loop as torch clips them: entries first, then the norm."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from foundling.objectives.base import Scale
from foundling.train import loop
from foundling.train.recipe import Recipe
from tests.train.test_start import begun

NORM, ENTRY = 0.3, 0.02
"""Of the first gradient below, both cut most of it away."""


@pytest.mark.parametrize(("clip", "clip_value"), [(NORM, None), (None, ENTRY), (NORM, ENTRY), (1e6, 1e6), (None, None)])
def test_a_step_is_along_the_clipped_gradient(
    tiny_recipe: Callable[..., Recipe], clip: float | None, clip_value: float | None
) -> None:
    """By a rule whose step is the gradient itself."""
    rule: dict[str, Any] = {"kind": "sgd", "momentum": 0.0, "lr": 1.0}
    changes = {"optimizer": rule, "schedule": {"kind": "constant", "warmup": 0}}
    training = begun(tiny_recipe(**changes, **{"train.clip": clip, "train.clip_value": clip_value}))
    net = training.model.config.build()
    net.load_state_dict(training.model.state_dict())
    batches = loop.micro_batches(training)
    num_targets = sum(batch.num_targets for batch in batches)
    for batch in batches:
        training.objective.loss(net, batch, Scale(1 / num_targets, 0.0), False).parts["causal"].backward()
    parameters = list(net.parameters())
    whole = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    assert whole > 2 * NORM
    assert max(p.grad.abs().max() for p in parameters) > 2 * ENTRY
    if clip_value is not None:
        torch.nn.utils.clip_grad_value_(parameters, clip_value)
    norm = torch.nn.utils.clip_grad_norm_(parameters, float("inf") if clip is None else clip)
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    loop.training_step(training)
    assert training.metrics["gradient_norm"] == pytest.approx(norm.item(), rel=1e-5)
    for name, parameter in training.model.named_parameters():
        gradient = net.get_parameter(name).grad
        torch.testing.assert_close(before[name] - parameter.detach(), gradient, atol=1e-6, rtol=1e-4, msg=name)
