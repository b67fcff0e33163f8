"""Dropout in every family: where it stands, when it works, and that a compiled block drops what an eager one does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foundling.nn import dropout as module
from foundling.nn.dropout import draws, dropout
from foundling.objectives.base import Scale
from foundling.parallel.apply import compile_blocks
from tests.tiny import tiny_batch, tiny_model

FAMILIES = ("bert", "gpt", "seq2seq", "xlnet")
SITES = {"bert": 1 + 2 * 2, "gpt": 1 + 2 * 2, "seq2seq": 2 + 2 * 2 + 3 * 2, "xlnet": 1 + 2 * 2}
"""Of two layers: the embedding of each stream, and each attention and MLP."""


def loss_of(model: Any, family: str, seed: int = 1) -> Tensor:
    objective, batch = tiny_batch(family)
    torch.manual_seed(seed)
    parts, _ = objective.loss(model, batch, Scale(1 / batch.num_targets, 1 / batch.num_rows), False)
    return torch.stack(list(parts.values())).sum()


def test_a_value_is_dropped_by_chance_and_the_others_grow() -> None:
    torch.manual_seed(0)
    layer = dropout(0.2)
    out = layer(torch.ones(100_000))
    assert (out == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(out[out != 0].unique(), torch.tensor([1 / 0.8]))
    assert torch.equal(layer.eval()(torch.ones(9)), torch.ones(9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_dropped_has_no_gradient_and_no_pattern(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = dropout(0.3), torch.ones(400, 1000, dtype=dtype, requires_grad=True)
    first, second = layer(x), layer(x)
    (gradient,) = torch.autograd.grad(first, x, torch.ones_like(x))
    assert torch.equal(gradient, first)
    dropped = (first.detach() == 0).float()
    for other in ((second == 0).float(), dropped.roll(1), dropped.roll(64), dropped.roll(1, 0)):
        assert (dropped * other).mean().item() == pytest.approx(0.09, abs=0.005)
    assert dropped.mean(0).std().item() == pytest.approx((0.21 / 400) ** 0.5, rel=0.1)


def test_threads_and_layout_change_nothing() -> None:
    layer, x = dropout(0.3), torch.rand(64, 100)
    outs = []
    for threads, given in ((1, x), (2, x), (2, x.t().contiguous().t())):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        outs.append(layer(given))
        torch.set_num_threads(before)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_torch_s_own_serves_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_kernel", lambda dtype: None)
    out = dropout(0.2)(torch.ones(100_000))
    assert (out == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (dropout(0.2)(torch.ones(100_000, dtype=torch.float64)) == 0).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_stands_on_the_embedding_and_on_each_sum(family: str) -> None:
    model = tiny_model(family, dropout=0.3)
    seen: list[Tensor] = []
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(lambda _, args, out: seen.append((out[args[0] != 0] == 0).float().mean()))
    loss_of(model, family)
    assert len(seen) == SITES[family]
    shares = torch.stack(seen)
    assert ((shares > 0.15) & (shares < 0.45)).all(), shares


@pytest.mark.parametrize("family", FAMILIES)
def test_it_works_in_training_alone_and_follows_from_the_seed(family: str) -> None:
    plain, model = tiny_model(family), tiny_model(family, dropout=0.3)
    first, again, other = (loss_of(model, family, seed).item() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    model.eval()
    assert loss_of(model, family).item() == loss_of(plain, family).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_without_it_nothing_is_drawn(family: str) -> None:
    model = tiny_model(family)
    assert not draws(model)
    loss_of(model, family)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.xdist_group("compile")
def test_a_compiled_block_drops_what_an_eager_one_does() -> None:
    eager, compiled = (tiny_model("gpt", dropout=0.3, layers=1) for _ in range(2))
    for model in (eager, compiled):
        model.set_kernel("blockwise", compiled=True)
    torch._dynamo.reset()
    compile_blocks(compiled.blocks(), any_size=False)
    losses = [loss_of(model, "gpt") for model in (eager, compiled)]
    torch.testing.assert_close(losses[1], losses[0], atol=1e-6, rtol=1e-6)
    for loss in losses:
        loss.backward()
    for (name, one), two in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, atol=1e-6, rtol=1e-5, msg=name)
