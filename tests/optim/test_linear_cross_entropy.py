"""The fused loss against the plain one, value and gradients, however it is cut."""

import pytest
import torch
from torch.nn import functional as F

from foundling.optim.losses import linear_cross_entropy as module
from foundling.optim.losses.base import PLAIN, Shape
from foundling.optim.losses.cross_entropy import Config as CrossEntropy
from foundling.optim.losses.focal import Config as Focal
from foundling.optim.losses.label_smoothing import Config as LabelSmoothing
from foundling.optim.losses.linear_cross_entropy import linear_cross_entropy, linear_nll

M, D, V = 23, 12, 37


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(M, D, generator=generator), torch.randn(V, D, generator=generator)
    targets = torch.randint(0, V, (M,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def cut(monkeypatch: pytest.MonkeyPatch, per_buffer: int, per_chunk: int, bytes_each: int = 4) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", per_buffer * V * bytes_each)
    monkeypatch.setattr(module, "CHUNK_BYTES", per_chunk * V * bytes_each)


SHAPES = [
    PLAIN, Shape(smoothing=0.1), Shape(gamma=2.0), Shape(gamma=0.5, z=1e-2), Shape(z=0.1), Shape(smoothing=0.3, z=1e-3),
]  # fmt: skip


def plainly(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, shape: Shape) -> torch.Tensor:
    """The loss of each target as it is written in the papers."""
    logits = hidden @ weight.T
    losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=shape.smoothing)
    if shape.gamma:
        losses = (1 - logits.softmax(-1)[range(M), targets]) ** shape.gamma * losses
    return losses + shape.z * logits.logsumexp(-1) ** 2


def assert_same(compiled: bool, atol: float = 1e-6, shape: Shape = PLAIN) -> None:
    hidden, weight, targets = inputs()
    scale = 1 / 17
    found, each = linear_cross_entropy(hidden, weight, targets, scale, compiled, shape=shape)
    wanted_M = plainly(hidden, weight, targets, shape)
    wanted = wanted_M.sum() * scale
    assert found.dtype == each.dtype == torch.float32
    assert not each.requires_grad
    torch.testing.assert_close(each, wanted_M.detach(), atol=atol, rtol=1e-5)
    torch.testing.assert_close(found, wanted, atol=atol, rtol=1e-6)
    ours = torch.autograd.grad(3 * found, (hidden, weight))
    theirs = torch.autograd.grad(3 * wanted, (hidden, weight))
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=atol, rtol=1e-5)


@pytest.mark.parametrize(
    ("per_buffer", "per_chunk"), [(100, 100), (100, 5), (23, 23), (10, 3), (7, 7), (4, 10), (1, 1), (0, 0)]
)
def test_value_and_gradients_however_it_is_cut(
    per_buffer: int, per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(monkeypatch, per_buffer, per_chunk)
    for shape in SHAPES:
        assert_same(compiled=False, shape=shape, atol=2e-6)


@pytest.mark.xdist_group("compile")
def test_compiled_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_native_cross_entropy", lambda dtype: None)
    for per_buffer, per_chunk in ((100, 100), (10, 3)):
        cut(monkeypatch, per_buffer, per_chunk)
        for shape in SHAPES:
            assert_same(compiled=True, atol=4e-6, shape=shape)


needs_native = pytest.mark.skipif(
    module._native_cross_entropy(torch.float32) is None, reason="no C++ compiler here that makes the kernels"
)


@needs_native
def test_native_is_not_native(monkeypatch: pytest.MonkeyPatch) -> None:
    for per_buffer, per_chunk in ((100, 100), (10, 3)):
        cut(monkeypatch, per_buffer, per_chunk)
        for shape in SHAPES:
            assert_same(compiled=True, atol=2e-6, shape=shape)


@needs_native
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_kernel_is_torch_s(dtype: torch.dtype, with_bias: bool, shape: Shape) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(5, 1003, generator=generator) * 20).to(dtype)
    bias = torch.randn(1003, generator=generator).to(dtype) if with_bias else None
    targets = torch.randint(0, 1003, (5, 1), generator=generator)
    found, wanted = logits.clone(), logits.clone()
    loss = module._to_gradient_natively_(found, bias, targets, 0.25, shape)
    shape_3 = torch.tensor([shape.smoothing, shape.gamma, shape.z])
    by_torch = (
        module._to_gradient_(wanted, bias, targets, 0.25)
        if shape.is_plain
        else module._to_shaped_gradient_(wanted, bias, targets, 0.25, shape_3)
    )
    torch.testing.assert_close(loss, by_torch, atol=0, rtol=1e-6)
    torch.testing.assert_close(found, wanted, atol=1e-7, rtol=1e-5 if dtype == torch.float32 else 2**-7)


@needs_native
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_native_kernel_hides_nothing(poison: float) -> None:
    logits = torch.zeros(2, 50)
    logits[1, 33] = poison
    assert module._to_gradient_natively_(logits, None, torch.tensor([[3], [4]]), 1.0, PLAIN)[1].isnan()
    assert logits[1].isnan().all()
    assert logits[0].isfinite().all()


def test_nothing_smoothed_and_nothing_focused_is_cross_entropy() -> None:
    hidden, weight, targets = inputs()
    found = [
        linear_cross_entropy(hidden, weight, targets, 1.0, False, shape=shape)[0]
        for shape in (PLAIN, LabelSmoothing(smoothing=0).shape, Focal(gamma=0).shape, CrossEntropy().shape)
    ]
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize(("per_buffer", "per_chunk"), [(100, 100), (10, 3)])
def test_bf16_is_as_close_as_bf16_is(per_buffer: int, per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, per_buffer, per_chunk, bytes_each=2)
    hidden, weight, targets = inputs(torch.bfloat16)
    found, _ = linear_cross_entropy(hidden, weight, targets, 1 / M, False)
    exact_hidden, exact_weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    wanted = F.cross_entropy(exact_hidden @ exact_weight.T, targets)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-2)
    ours = torch.autograd.grad(found, (hidden, weight))
    theirs = torch.autograd.grad(wanted, (exact_hidden, exact_weight))
    for one, two in zip(ours, theirs, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one.double() - two).norm() < 0.02 * two.norm()


def test_large_logits_do_not_overflow() -> None:
    hidden, weight = torch.full((2, 1), 300.0), torch.tensor([[1.0], [-1.0], [0.5]])
    loss, _ = linear_cross_entropy(hidden, weight, torch.tensor([0, 1]), 1.0, False)
    assert loss.item() == pytest.approx(600.0)


def test_no_targets_are_a_loss_and_gradients_of_zero() -> None:
    hidden, weight, targets = inputs()
    none = hidden[:0]
    loss, _ = linear_cross_entropy(none, weight, targets[:0], 1.0, False)
    assert loss.item() == 0.0
    to_hidden, to_weight = torch.autograd.grad(loss, (hidden, weight))
    assert to_hidden.eq(0).all()
    assert to_weight.eq(0).all()
    assert linear_nll(none, weight, targets[:0]).shape == (0,)


def test_nll_of_each_position_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = inputs()
    wanted = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    for per_buffer in (100, 5, 0):
        monkeypatch.setattr(module, "BUFFER_BYTES", per_buffer * V * 4)
        found = linear_nll(hidden, weight, targets)
        assert not found.requires_grad
        torch.testing.assert_close(found, wanted.detach(), atol=1e-6, rtol=1e-6)


def test_the_numbers_are_right_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.tensor([1, 4, 0])
    found = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, 1.0, False)[0], (hidden, weight))
    for tensor, gradient in zip((hidden, weight), found, strict=True):
        step = torch.zeros_like(tensor)
        step[0, 1] = 1e-5
        with torch.no_grad():
            up, down = (
                F.cross_entropy(
                    (hidden + s if tensor is hidden else hidden) @ (weight + s if tensor is weight else weight).T,
                    targets,
                    reduction="sum",
                )
                for s in (step, -step)
            )
        assert gradient[0, 1].item() == pytest.approx(((up - down) / 2e-5).item(), rel=1e-5)
