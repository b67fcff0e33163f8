"""Optimizers against torch's, on a small net; Muon against its definition."""

from typing import Any

import pytest
import torch
from torch import nn

from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.optim.optimizer import Optimizer

STEPS = 12


def nets() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 8))
    theirs = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 8))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def train(net: nn.Module, step: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(16, 8, generator=generator)
        (net(x) - x.flip(-1)).square().mean().backward()
        step()


def ours_after(net: nn.Module, kind: str, **settings: Any) -> None:
    config = load_part("optim", kind).Config.model_validate({"kind": kind, **settings})
    optimizer = Optimizer(net.named_parameters(), config, settings.get("lr", 1e-2), False)
    train(net, lambda: optimizer.step(1.0))


def theirs_after(net: nn.Module, make: Any) -> None:
    matrices = [p for p in net.parameters() if p.ndim == 2]
    vectors = [p for p in net.parameters() if p.ndim < 2]
    optimizer = make(matrices, vectors)

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    train(net, step)


@pytest.mark.parametrize(
    ("kind", "settings", "reference"),
    [
        ("adam", {"betas": (0.9, 0.99)}, lambda groups: torch.optim.Adam(groups, lr=1e-2, betas=(0.9, 0.99))),
        ("sgd", {"momentum": 0.9}, lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9)),
        (
            "sgd",
            {"momentum": 0.9, "nesterov": True},
            lambda g: torch.optim.SGD(g, lr=1e-2, momentum=0.9, nesterov=True),
        ),
        ("sgd", {"momentum": 0.0}, lambda groups: torch.optim.SGD(groups, lr=1e-2)),
        ("adafactor", {}, lambda groups: torch.optim.Adafactor(groups, lr=1e-2)),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_as_torch_does(kind: str, settings: dict[str, Any], reference: Any, decay: float) -> None:
    ours, theirs = nets()
    ours_after(ours, kind, lr=1e-2, weight_decay=decay, **settings)
    theirs_after(
        theirs,
        lambda matrices, vectors: reference(
            [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        ),
    )
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)


def test_lion_is_its_paper() -> None:
    ours, theirs = nets()
    ours_after(ours, "lion", lr=1e-3, weight_decay=0.1, betas=(0.9, 0.99))
    momenta = {p: torch.zeros_like(p) for p in theirs.parameters()}

    def step() -> None:
        with torch.no_grad():
            for p, m in momenta.items():
                g, decay = p.grad, 0.1 if p.ndim == 2 else 0.0
                p.sub_(1e-3 * ((0.9 * m + 0.1 * g).sign() + decay * p))
                m.mul_(0.99).add_(g, alpha=0.01)
                p.grad = None

    train(theirs, step)
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)


def test_an_update_of_muon_is_orthogonal_and_of_adamws_size() -> None:
    net = nn.Linear(16, 32, bias=False)
    before = net.weight.detach().clone()
    config = load_part("optim", "muon").Config.model_validate({"kind": "muon", "lr": 1.0, "weight_decay": 0.0})
    optimizer = Optimizer(net.named_parameters(), config, 1.0, False)
    net(torch.randn(64, 16, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    optimizer.step(1.0)
    update = before - net.weight.detach()
    assert abs(update.square().mean().sqrt().item() - 0.2) < 0.03
    values = torch.linalg.svdvals(update)
    assert values.max() / values.min() < 1.6


def orthogonal(x_AB: torch.Tensor, quintic: bool) -> torch.Tensor:
    """U V' of a matrix U S V', exactly; quintic: U p(S) V', what Jordan's polynomial makes of it in five steps from a
    norm of 1 / 1.01."""
    u, s, v = torch.linalg.svd(x_AB.double(), full_matrices=False)
    if not quintic:
        return (u @ v).float()
    s = s / (1.01 * s.square().sum().sqrt())
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s @ v).float()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nesterov": False},
        {"cautious": True},
        {"scale": "shape"},
        {"coefficients": "quintic", "steps": 5},
        {"by_head": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("head_rows", [None, 4])
def test_muon_is_momentum_made_orthogonal(settings: dict[str, Any], head_rows: int | None) -> None:
    """Its definition with a singular value decomposition in the products' place, head by head where rows are heads."""
    ours, theirs = nets()
    given = {"kind": "muon", "lr": 1e-2, "weight_decay": 5.0, "steps": 12, "adamw": {"lr": 1e-2}, **settings}
    config = load_part("optim", "muon").Config.model_validate(given)
    muon = Optimizer(ours.named_parameters(), config, 1e-2, False, matrices={"*": head_rows})
    train(ours, lambda: muon.step(1.0))
    momenta = {p: torch.zeros_like(p) for p in theirs.parameters() if p.ndim == 2}
    vectors = [p for p in theirs.parameters() if p.ndim < 2]
    adamw = torch.optim.AdamW(vectors, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0)

    def step() -> None:
        with torch.no_grad():
            for p, m in momenta.items():
                assert p.grad is not None
                m.lerp_(p.grad, 0.05)
                mixed = m if settings.get("nesterov") is False else p.grad.lerp(m, 0.95)
                heads = mixed.split(len(p) if head_rows is None or settings.get("by_head") is False else head_rows)
                update = torch.cat([orthogonal(head, "coefficients" in settings) for head in heads])
                rows, columns = heads[0].shape
                size = max(1, rows / columns) ** 0.5 if "scale" in settings else 0.2 * max(rows, columns) ** 0.5
                decays = update * p > 0 if "cautious" in settings else torch.ones_like(p)
                p.mul_(1 - 0.05 * decays).sub_(1e-2 * size * update)
        adamw.step()
        theirs.zero_grad()

    train(theirs, step)
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


def test_muon_leaves_what_is_no_matrix_to_adamw() -> None:
    ours, theirs = nets()
    matrices = {"1.weight": None}
    settings = {"kind": "muon", "lr": 1e-2, "weight_decay": 0.0, "adamw": {"lr": 1e-2}}
    config = load_part("optim", "muon").Config.model_validate(settings)
    muon = Optimizer(ours.named_parameters(), config, 1e-2, False, matrices=matrices)
    adamw = load_part("optim", "adamw").Config.model_validate({"kind": "adamw", "lr": 1e-2, "weight_decay": 0.0})
    other = Optimizer(theirs.named_parameters(), adamw, 1e-2, False)
    for net, optimizer in ((ours, muon), (theirs, other)):
        net(torch.ones(4, 8)).square().mean().backward()
        optimizer.step(1.0)
    names = [name for name, p in ours.named_parameters() if not torch.equal(p, dict(theirs.named_parameters())[name])]
    assert names == ["1.weight"]
    with pytest.raises(UserError, match="matrices between hidden states"):
        Optimizer(
            theirs.named_parameters(),
            load_part("optim", "muon").Config.model_validate(settings),
            1e-2,
            False,
            matrices={},
        )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("ema", {"decay": 0.8, "warmup": False}), ("ema", {"decay": 0.5}), ("last", {"number": 3, "every": "2 steps"})],
)
def test_an_average_is_the_mean_that_it_says(kind: str, settings: dict[str, Any]) -> None:
    """An exponential one looks back less far at first, unless told not to: of 0.5 by (1 + n) / (10 + n) to step 8."""
    net, _ = nets()
    average = load_part("optim.averages", kind).Config.model_validate({"kind": kind, **settings}).build(STEPS, 1.0)
    config = load_part("optim", "adamw").Config.model_validate({"kind": "adamw"})
    optimizer = Optimizer(net.named_parameters(), config, 1e-2, False, average=average)
    seen: list[torch.Tensor] = []

    def step() -> None:
        optimizer.step(1.0)
        seen.append(net[0].weight.detach().double().clone())

    train(net, step)
    if kind == "last":
        wanted = torch.stack([seen[7], seen[9], seen[11]]).mean(0)
    else:
        wanted = seen[0]
        for n, weights in enumerate(seen[1:], 2):
            decay = 0.8 if "warmup" in settings else min(0.5, (1 + n) / (10 + n))
            wanted = decay * wanted + (1 - decay) * weights
    before = net[0].weight.detach().clone()
    with optimizer.averaged():
        torch.testing.assert_close(net[0].weight.detach().double(), wanted, atol=1e-6, rtol=1e-5)
    assert torch.equal(net[0].weight, before)


def test_entries_are_clipped_and_what_is_not_finite_stays() -> None:
    net, _ = nets()
    optimizer = Optimizer(net.named_parameters(), load_part("optim", "adamw").Config(kind="adamw"), 1e-2, False)
    optimizer.slots[0].gradient.copy_(torch.linspace(-2, 2, 96).view(12, 8))
    optimizer.slots[1].gradient[0] = torch.nan
    optimizer.clip_values(0.5)
    assert optimizer.slots[0].gradient.abs().max() == 0.5
    assert optimizer.slots[1].gradient[0].isnan()
