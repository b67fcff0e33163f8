"""Blocks that are computed again in the backward pass: what they keep, and that nothing else differs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.parallel.apply import compile_blocks, recompute_blocks
from tests.nn.test_attention import ROWS
from tests.nn.test_dropout import FAMILIES, loss_of
from tests.tiny import tiny_model


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kernel", ["sdpa", "blockwise", ROWS])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_without_to_the_bit(family: str, kernel: Any) -> None:
    plain, again = (tiny_model(family, dropout=0.3) for _ in range(2))
    recompute_blocks(again.blocks())
    losses = []
    for model in (plain, again):
        model.set_kernel(kernel)
        with torch.compiler.set_stance("force_eager"):  # the kernels themselves are compiled elsewhere
            losses.append(loss_of(model, family))
            losses[-1].backward()
    assert losses[0].item() == losses[1].item()
    expected, found = gradients(plain), gradients(again)
    assert expected.keys() == found.keys() == dict(again.named_parameters()).keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_runs_twice_in_training_and_once_without_gradients(family: str) -> None:
    model, runs = tiny_model(family), 0
    for block in model.blocks():

        def count(*_: Any) -> None:
            nonlocal runs
            runs += 1

        block.attention.register_forward_pre_hook(count)
    recompute_blocks(model.blocks())
    loss_of(model, family).backward()
    assert runs == 2 * len(model.blocks())
    with torch.no_grad():
        loss_of(model, family)
    assert runs == 3 * len(model.blocks())


def kept_values(model: Any, family: str) -> int:
    """Numbers that a forward pass keeps for the backward, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, family)
    assert loss.requires_grad
    return sum(t.untyped_storage().nbytes() // t.element_size() for place, t in kept.items() if place not in own)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_block_keeps_little_more_than_its_input(family: str) -> None:
    more = {}
    for recompute in (False, True):
        models = [tiny_model(family, layers=layers) for layers in (3, 4)]
        for model in models if recompute else ():
            recompute_blocks(model.blocks())
        three, four = (kept_values(model, family) for model in models)
        more[recompute] = four - three
    assert 0 < more[True] < more[False] / 8, more


@pytest.mark.xdist_group("compile")
def test_a_compiled_block_rounds_and_drops_as_it_did() -> None:
    losses, found, graphs, kept = [], [], [], []
    for recompute in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        models = [tiny_model("gpt", dropout=0.3, layers=layers).to(torch.bfloat16) for layers in (1, 2)]
        for model in models:
            model.set_kernel("blockwise", compiled=True)
            compile_blocks(model.blocks(), any_size=False)
            if recompute:
                recompute_blocks(model.blocks())
        losses.append(loss_of(models[1], "gpt"))
        losses[-1].backward()
        found.append(gradients(models[1]))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        one, two = (kept_values(model, "gpt") for model in models)
        kept.append(two - one)
    assert graphs[0] == graphs[1], "the block itself is compiled, not only what it calls"
    assert losses[0].item() == losses[1].item()
    for name, gradient in found[0].items():
        assert torch.equal(found[1][name], gradient), name
    assert 0 < kept[1] < kept[0] / 8, kept


def test_a_model_without_blocks_is_told() -> None:
    with pytest.raises(UserError, match=r"train\.recompute needs a model with blocks"):
        recompute_blocks(tiny_model("word2vec").blocks())
