"""What every objective must do, whoever wrote it: found by name, tried unasked."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foundling.core.config import resolved
from foundling.core.registry import load_part, part_names
from foundling.data.batch import Batch
from foundling.data.rows import Row, Rows
from foundling.models.gpt import Config, Gpt
from foundling.objectives.base import Objective
from tests.tiny import ArrayStream

KINDS = part_names("objectives")
VOCAB = 50


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest) -> Any:
    return load_part("objectives", request.param).Config.model_validate({"kind": request.param})


@pytest.fixture
def objective(config: Any) -> Objective:
    return config.build()


def model() -> Gpt:
    small = Config(
        vocab_size=VOCAB, layers=2, width=16, heads=4, kv_heads=2, mlp_width=24, max_positions=16, init_std=0.02
    ).build()
    small.initialize(torch.Generator().manual_seed(0))
    return small


def some_rows(objective: Objective, number: int = 6) -> list[Row]:
    tokens = np.random.default_rng(0).integers(0, VOCAB, 300)
    rows = Rows([ArrayStream(tokens)], None, row_length=12, extra_tokens=objective.extra_tokens, seed=0)
    return [rows[i] for i in range(number)]


def gradients(net: Gpt, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters()), allow_unused=True))  # type: ignore[arg-type]


def test_the_shipped_ones_are_found() -> None:
    assert "causal" in KINDS


def test_config_is_documented_and_survives_its_own_dump(config: Any) -> None:
    assert all(field.description for field in type(config).model_fields.values())
    assert type(config).model_validate(resolved(config)) == config


def test_collating_is_deterministic_and_names_its_rows(objective: Objective) -> None:
    rows = some_rows(objective)
    torch.manual_seed(1)
    one = objective.collate(rows)
    torch.manual_seed(2)
    two = objective.collate(rows)
    for name in Batch.__dataclass_fields__:
        first, second = getattr(one, name), getattr(two, name)
        assert torch.equal(first, second) if isinstance(first, Tensor) else first == second, name
    assert one.samples_R == tuple(row.sample for row in rows)
    assert len(one.sources_R) == one.num_rows
    assert one.bounds_R1[0] == 0
    assert one.bounds_R1[-1] == one.num_tokens
    assert one.max_row_length == int(one.bounds_R1.diff().max())
    assert one.num_targets > 0


def test_the_loss_is_finite_and_its_gradient_reaches_every_parameter(objective: Objective) -> None:
    net, batch = model(), objective.collate(some_rows(objective))
    loss = objective.loss(net, batch, 1.0, False)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert loss > 0
    for (name, _), gradient in zip(net.named_parameters(), gradients(net, loss), strict=True):
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().sum() > 0, name


def test_an_untrained_model_knows_nothing(objective: Objective) -> None:
    batch = objective.collate(some_rows(objective))
    mean = objective.loss(model(), batch, 1 / batch.num_targets, False)
    assert mean.item() == pytest.approx(np.log(VOCAB), rel=0.05)


def test_token_losses_sum_to_the_loss(objective: Objective) -> None:
    net, batch = model(), objective.collate(some_rows(objective))
    losses = objective.token_losses(net, batch)
    assert losses.shape == (batch.num_targets,)
    assert losses.dtype == torch.float32
    assert not losses.requires_grad
    assert objective.loss(net, batch, 1.0, False).item() == pytest.approx(losses.sum().item(), rel=1e-6)


def test_scaled_parts_add_up_to_the_whole(objective: Objective) -> None:
    net, rows = model(), some_rows(objective)
    whole = objective.collate(rows)
    scale = 1 / whole.num_targets
    wanted = objective.loss(net, whole, scale, False)
    parts = [objective.loss(net, objective.collate(part), scale, False) for part in (rows[:1], rows[1:4], rows[4:])]
    torch.testing.assert_close(sum(parts), wanted, atol=1e-6, rtol=1e-6)
    for one, two in zip(gradients(net, sum(parts)), gradients(net, wanted), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)
