"""AdamW against torch's, and the frame around it: masters, copies, accumulators, groups."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from foundling.core.errors import UserError
from foundling.optim import adam, adamw
from foundling.optim.adamw import Config
from foundling.optim.base import Group
from foundling.optim.muon import Config as Muon
from foundling.optim.optimizer import Optimizer, sum_of_squares


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def data(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield torch.randn(5, 6, generator=generator), torch.randn(5, 3, generator=generator)


def make(model: nn.Module, lr: float = 1e-2, compiled: bool = False, **keys: object) -> Optimizer:
    return Optimizer(model.named_parameters(), Config.model_validate(keys), lr, compiled)


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999)])
def test_twenty_steps_are_torchs(betas: tuple[float, float]) -> None:
    ours, theirs = net(), net()
    optimizer = make(
        ours, betas=betas, eps=1e-7, weight_decay=0.1, groups=[Group(match="3.*", lr=3e-3, weight_decay=0.5)]
    )
    reference = torch.optim.AdamW(
        [
            {"params": [theirs[0].weight], "weight_decay": 0.1},
            {"params": [theirs[0].bias, *theirs[2].parameters()], "weight_decay": 0.0},
            {"params": list(theirs[3].parameters()), "lr": 3e-3, "weight_decay": 0.5},
        ],
        lr=1e-2, betas=betas, eps=1e-7,
    )  # fmt: skip
    rates = [group["lr"] for group in reference.param_groups]
    for step, (x, y) in enumerate(data(20)):
        factor, clip = 1 / (1 + step), 0.5 if step % 3 == 0 else 1.0
        for model in (ours, theirs):
            (model(x) - y).square().mean().backward()
        for group, rate in zip(reference.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        for parameter in theirs.parameters():
            parameter.grad.mul_(clip)  # type: ignore[union-attr]
        reference.step()
        reference.zero_grad()
        optimizer.step(factor, clip)
        for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)


def test_copies_are_always_their_masters_rounded() -> None:
    model = net()
    optimizer = make(model)
    optimizer.make_copies(torch.bfloat16)
    for x, y in data(10):
        (model(x.bfloat16()).float() - y).square().mean().backward()
        optimizer.step(1.0)
        for slot in optimizer.slots:
            assert slot.master.dtype == torch.float32
            assert slot.parameter.dtype == torch.bfloat16
            assert torch.equal(slot.parameter.data, slot.master.bfloat16())
    assert any(not torch.equal(s.master, s.parameter.data.float()) for s in optimizer.slots), "masters are finer"
    with torch.no_grad():
        optimizer.slots[0].master.fill_(1.2345)
    optimizer.refresh_copies()
    assert torch.equal(optimizer.slots[0].parameter.data, optimizer.slots[0].master.bfloat16())


def test_small_steps_add_up_below_the_copies_resolution() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    optimizer = Optimizer([("w", weight)], Config(weight_decay=0.0), 1e-4, compiled=False)
    optimizer.make_copies(torch.bfloat16)
    for _ in range(100):
        weight.sum().backward()
        optimizer.step(1.0)
    torch.testing.assert_close(weight.detach().float(), torch.full((4, 4), 0.99), atol=4e-3, rtol=0)
    torch.testing.assert_close(optimizer.slots[0].master, torch.full((4, 4), 0.99), atol=1e-4, rtol=0)


def test_the_second_moment_decays_in_bf16_too() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    optimizer = Optimizer([("w", weight)], Config(betas=(0.9, 0.999)), 1e-3, compiled=False)
    optimizer.make_copies(torch.bfloat16)
    (100 * weight).sum().backward()
    optimizer.step(1.0)
    second = optimizer.slots[0].state["second_moment"]
    start = second.clone()
    for _ in range(500):
        (0 * weight).sum().backward()
        optimizer.step(1.0)
    torch.testing.assert_close(second, start * 0.999**500, rtol=1e-3, atol=0)


def test_gradients_of_micro_batches_are_summed_in_fp32() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = Optimizer([("w", weight)], Config(), 1e-3, compiled=False)
    optimizer.make_copies(torch.bfloat16)
    for _ in range(1000):  # in bf16 the sum would stay at 256
        weight.sum().backward()
        assert weight.grad is None
    assert optimizer.slots[0].gradient.dtype == torch.float32
    assert optimizer.slots[0].gradient.eq(1000).all()
    optimizer.step(1.0)
    assert optimizer.slots[0].gradient.eq(0).all()


def test_groups_match_by_pattern_and_of_each_setting_the_first_counts() -> None:
    groups = [Group(match="0.*", lr=0.5), Group(match="*.weight", lr=0.25, weight_decay=0.0)]
    optimizer = make(net(), lr=0.1, weight_decay=0.3, groups=groups)
    found = {slot.name: (slot.lr, slot.weight_decay) for slot in optimizer.slots}
    assert found == {
        "0.weight": (0.5, 0.0), "0.bias": (0.5, 0.0),
        "2.weight": (0.25, 0.0), "2.bias": (0.1, 0.0),
        "3.weight": (0.25, 0.0), "3.bias": (0.1, 0.0),
    }  # fmt: skip
    with pytest.raises(UserError, match=r"got 'embedding\.\*', which matches none; names look like 0\.weight"):
        make(net(), groups=[Group(match="embedding.*", lr=0.1)])


def test_a_group_that_those_before_it_leave_nothing_is_told() -> None:
    """Of settings and parameters: a group counts as long as one of its settings reaches one parameter."""
    wide, rest = Group(match="*.weight", lr=0.5), Group(match="*", lr=0.25)
    with pytest.raises(UserError, match=r"got '0\.weight', for which '\*\.weight' before it set all; put it before"):
        make(net(), groups=[wide, Group(match="0.weight", lr=0.1)])
    with pytest.raises(UserError, match=r"'2\.\*', for which '\*\.weight' and '\*' before it"):
        make(net(), groups=[wide, rest, Group(match="2.*", lr=0.1)])
    with pytest.raises(UserError, match=r"got '\*', for which '\*' before it"):
        make(net(), groups=[rest, rest])
    make(net(), groups=[wide, rest, Group(match="0.weight", lr=0.1, weight_decay=0.5)])


def test_frozen_parameters_stay_and_at_least_one_must_train() -> None:
    model = net()
    model[0].requires_grad_(False)
    optimizer = make(model)
    assert not {"0.weight", "0.bias"} & {slot.name for slot in optimizer.slots}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.make_copies(torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}, "a model computes in one type"
    for x, _ in data(2):
        model(x.bfloat16()).float().square().mean().backward()
        optimizer.step(1.0)
    after = dict(optimizer.whole_masters())
    assert after.keys() == before.keys()
    assert {name for name in after if torch.equal(after[name], before[name])} == {"0.weight", "0.bias"}
    model.requires_grad_(False)
    with pytest.raises(UserError, match="at least one parameter must be trainable"):
        make(model)


def test_gradient_norm_is_torchs_and_tells_what_is_not_finite() -> None:
    model = net()
    optimizer = make(model)
    x, y = next(data(1))
    loss = (model(x) - y).square().mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    loss.backward()
    wanted = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    assert optimizer.gradient_norm() == pytest.approx(wanted, rel=1e-6)
    optimizer.slots[2].gradient[0] = math.inf
    assert optimizer.gradient_norm() == math.inf
    optimizer.slots[3].gradient[0] = math.nan
    assert math.isnan(optimizer.gradient_norm())
    optimizer.zero()
    assert optimizer.gradient_norm() == 0.0


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1_000_003])
def test_sum_of_squares_is_exact(size: int) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)) + 0.5
    found = sum_of_squares(x)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(x.double().square().sum().item(), rel=1e-6)


def test_all_state_is_named() -> None:
    tensors = make(net()).tensors()
    kinds = {name.split("/")[0] for name in tensors}
    assert kinds == {"master", "first_moment", "second_moment"}
    assert len(tensors) == 3 * 6


@pytest.mark.parametrize("coupled", [False, True])
def test_the_kernel_in_cpp_is_the_plain_update(coupled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if adamw._native() is None:
        pytest.skip("no C++ compiler here that makes the kernels")

    def step() -> list[Tensor]:
        torch.manual_seed(3)
        model = nn.Linear(61, 53)  # neither whole vectors nor whole pieces
        optimizer = Optimizer(model.named_parameters(), adam.Config() if coupled else Config(), 1e-2, False)
        optimizer.make_copies(torch.bfloat16)
        for _ in range(3):
            for slot in optimizer.slots:
                slot.gradient.normal_()
            optimizer.step(0.5, 0.7)
        return [t for slot in optimizer.slots for t in (slot.master, slot.copy, *slot.state.values()) if t is not None]

    kernel = step()
    monkeypatch.setattr(adamw, "_native", lambda name="adamw": None)
    for ours, plain in zip(kernel, step(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-2 if ours.dtype == torch.bfloat16 else 2e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_an_embedding_read_are_its_whole_gradient(dtype: torch.dtype) -> None:
    """Read twice in one step and a third time by a matrix product, as a tied embedding is."""

    def gradient(sparse: bool) -> Tensor:
        torch.manual_seed(4)
        model = nn.Embedding(20, 6, sparse=sparse)
        optimizer = make(model)
        if dtype != torch.float32:
            optimizer.make_copies(dtype)
        tokens = torch.tensor([3, 7, 3, 19])
        (model(tokens).square().sum() + 2 * model(tokens[1:]).sin().sum()).backward()
        (model(tokens) @ model.weight.T).float().logsumexp(-1).sum().backward()
        return optimizer.slots[0].gradient

    tolerance = 1e-6 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(gradient(sparse=True), gradient(sparse=False), rtol=tolerance, atol=tolerance)


def reads_of(steps: int) -> Iterator[Tensor]:
    """Some of 20 rows a step, some of them twice."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        yield torch.randint(0, 20, (8,), generator=generator)


def table(sparse: bool) -> nn.Embedding:
    return nn.Embedding(20, 5, sparse=sparse, _weight=torch.randn(20, 5, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_rows_that_were_never_read_decay_and_nothing_else_to_the_bit(
    dtype: torch.dtype, decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps whose gradient is of a few rows, in one that has them all, and where another optimizer goes on."""
    if adamw._native() is None:
        pytest.skip("no C++ compiler here that makes the kernel")
    kernel, asked = adamw._native, list[str]()
    monkeypatch.setattr(adamw, "_native", lambda name="adamw": (asked.append(name), kernel(name))[1])

    def run(sparse: bool) -> dict[str, Tensor]:
        model = table(sparse)
        optimizer = Optimizer([("t", model.weight)], Config(weight_decay=decay), 1e-2, False)
        if dtype != torch.float32:
            optimizer.make_copies(dtype)
        for step, rows in enumerate(reads_of(9)):
            if step == 6:  # as a resumed run: the state is there, what the rule remembers beside it is not
                optimizer.rule = Config(weight_decay=decay).build()
            (model(rows[: step % 3 + 1]).float() ** 2).sum().backward()
            if step == 4:
                (model.weight.float() ** 2).sum().backward()
            optimizer.step(1.0)
            assert not optimizer.slots[0].gradient.any()
        return {name: tensor.clone() for name, (tensor, _) in optimizer.tensors().items()} | {"copy": model.weight.data}

    by_rows, whole = run(sparse=True), run(sparse=False)
    assert "adamw_rows" in asked
    for name, tensor in whole.items():
        assert torch.equal(by_rows[name], tensor), name


def test_a_table_is_stepped_as_torchs_sparse_adam_steps_it() -> None:
    ours, theirs = table(sparse=True), table(sparse=True)
    config = Config(weight_decay=0.0, betas=(0.9, 0.99), eps=1e-12)
    optimizer = Optimizer([("t", ours.weight)], config, 1e-2, False, tables=["t"])
    reference = torch.optim.SparseAdam(theirs.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-12)
    for rows in reads_of(12):
        for layer in (ours, theirs):
            layer(rows).square().sum().backward()
        optimizer.step(1.0)
        reference.step()
        reference.zero_grad()
        torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-6, rtol=1e-6)
        assert not optimizer.slots[0].gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_row_without_gradient_stays_however_gradients_come(dtype: torch.dtype, clip: float | None) -> None:
    sparse, dense = table(sparse=True), table(sparse=False)
    optimizers = [Optimizer([("t", layer.weight)], Config(), 1e-2, False, tables=["t"]) for layer in (sparse, dense)]
    if dtype != torch.float32:
        for optimizer in optimizers:
            optimizer.make_copies(dtype)
    for rows in reads_of(6):
        before = {name: tensor.clone() for name, (tensor, _) in optimizers[0].tensors().items()}
        for layer, optimizer in zip((sparse, dense), optimizers, strict=True):
            for part in rows.split(4):  # two micro-batches
                layer(part).float().square().sum().backward()
            if clip is not None:
                optimizer.clip_values(clip)
        one, two = (optimizer.gradient_norm() for optimizer in optimizers)
        assert one == pytest.approx(two, rel=1e-12)
        assert one == pytest.approx(float(optimizers[1].slots[0].gradient.norm()), rel=1e-6)
        for optimizer in optimizers:
            optimizer.step(1.0, 0.5)
        read = torch.zeros(20, dtype=torch.bool).index_fill(0, rows, True)
        for name, (tensor, _) in optimizers[0].tensors().items():
            torch.testing.assert_close(tensor, optimizers[1].tensors()[name][0], atol=1e-6, rtol=1e-4)
            assert torch.equal(tensor[~read], before[name][~read]), name
            assert (tensor[read] != before[name][read]).any(1).all(), name
        torch.testing.assert_close(sparse.weight, dense.weight)


def test_a_group_that_sets_nothing_is_a_fault() -> None:
    with pytest.raises(ValueError, match="must set lr, weight_decay or hidden"):
        Group(match="0.*")


def test_multiples_of_the_rate_hold_where_no_group_gives_a_rate() -> None:
    groups = [Group(match="0.*", weight_decay=0.5), Group(match="2.*", lr=0.7)]
    optimizer = Optimizer(
        net().named_parameters(), Config(lr=0.1, groups=tuple(groups)), 0.1, compiled=False,
        lr_factors={"0.weight": 8.0, "2.weight": 8.0},
    )  # fmt: skip
    found = {slot.name: (slot.lr, slot.weight_decay) for slot in optimizer.slots}
    assert found["0.weight"] == (pytest.approx(0.8), 0.5)
    assert found["2.weight"][0] == 0.7
    assert found["3.weight"][0] == 0.1


def test_rates_that_are_told_are_those_that_are_taken() -> None:
    factors = {"0.weight": 8.0, "2.weight": 4.0}
    adamw = Config(lr=0.1, groups=(Group(match="2.*", lr=0.7),))
    muon = Muon(lr=0.5).with_rates(0.001, 64)
    assert adamw.other_rates(0.1, factors) == {"0.weight": 0.8, "2.weight": 0.7}
    assert muon.other_rates(0.5, factors) == {"0.weight": 0.008, "2.weight": 0.004}
    optimizer = Optimizer(net().named_parameters(), adamw, 0.1, compiled=False, lr_factors=factors)
    found = {slot.name: slot.lr for slot in optimizer.slots}
    assert {name: found[name] for name in factors} == pytest.approx(adamw.other_rates(0.1, factors))
