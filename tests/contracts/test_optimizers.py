"""What every optimizer must do, whoever wrote it: found by name, tried unasked."""

import pytest
import torch
from torch import nn

from foundling.core.config import resolved
from foundling.core.registry import load_part, part_names
from foundling.optim.base import OptimizerConfig
from foundling.optim.optimizer import Optimizer

KINDS = part_names("optim")


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest) -> OptimizerConfig:
    return load_part("optim", request.param).Config.model_validate({"kind": request.param, "weight_decay": 0.01})


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 8))


def make(
    config: OptimizerConfig, compiled: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Optimizer]:
    net = model()
    optimizer = Optimizer(net.named_parameters(), config, 1e-2, compiled)
    if dtype != torch.float32:
        optimizer.make_copies(dtype)
    return net, optimizer


def loss_of(net: nn.Module) -> torch.Tensor:
    """A quadratic in what the net makes of fixed inputs."""
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1)).to(next(net.parameters()).dtype)
    return (net(x).float() - x.float().flip(-1)).square().mean()


def train(net: nn.Module, optimizer: Optimizer, steps: int) -> float:
    for _ in range(steps):
        loss_of(net).backward()
        optimizer.step(1.0)
    return loss_of(net).item()


def test_the_shipped_ones_are_found() -> None:
    assert "adamw" in KINDS
    assert "base" not in KINDS


def test_config_is_documented_and_survives_its_own_dump(config: OptimizerConfig) -> None:
    assert all(field.description for field in type(config).model_fields.values())
    assert type(config).model_validate(resolved(config)) == config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quadratic_goes_down(config: OptimizerConfig, dtype: torch.dtype) -> None:
    net, optimizer = make(config, dtype=dtype)
    start = loss_of(net).item()
    assert train(net, optimizer, 60) < 0.5 * start


def test_a_rate_of_zero_changes_nothing(config: OptimizerConfig) -> None:
    net, optimizer = make(config)
    before = [p.detach().clone() for p in net.parameters()]
    loss_of(net).backward()
    optimizer.step(0.0)
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_round_to_the_bit(config: OptimizerConfig, dtype: torch.dtype) -> None:
    net, optimizer = make(config, dtype=dtype)
    train(net, optimizer, 7)
    saved = {name: tensor.clone() for name, (tensor, _) in optimizer.tensors().items()}
    steps = optimizer.steps
    wanted = train(net, optimizer, 5)
    other_net, other = make(config, dtype=dtype)
    assert other.tensors().keys() == saved.keys()
    with torch.no_grad():
        for name, (tensor, _) in other.tensors().items():
            assert tensor.dtype == torch.float32
            tensor.copy_(saved[name])
    other.refresh_copies()
    other.steps = steps
    assert train(other_net, other, 5) == wanted
    for name, (tensor, _) in optimizer.tensors().items():
        assert torch.equal(tensor, other.tensors()[name][0]), name


@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_is_not_compiled(config: OptimizerConfig, dtype: torch.dtype) -> None:
    results = []
    for compiled in (False, True):
        net, optimizer = make(config, compiled, dtype)
        loss_of(net).backward()
        optimizer.step(0.7, 0.3)
        loss_of(net).backward()
        optimizer.step(0.9, 0.5)
        results.append({name: tensor for name, (tensor, _) in optimizer.tensors().items()})
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, atol=2e-6, rtol=2e-5, msg=name)
