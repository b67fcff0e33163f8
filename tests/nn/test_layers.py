"""Norms, MLPs, positions and initial values against torch and the plain formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from foundling.nn.init import fill_, residual_std
from foundling.nn.mlp import GeluMlp, SwigluMlp, gelu_tanh
from foundling.nn.norms import LayerNorm, RmsNorm
from foundling.nn.positions import rotary_tables, rotate


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gelu_is_torchs_tanh_form() -> None:
    x = torch.linspace(-12, 12, 2001).requires_grad_()
    found, wanted = gelu_tanh(x), F.gelu(x, approximate="tanh")
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    gradients = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (found, wanted)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=2e-6, rtol=1e-5)
    assert gelu_tanh(torch.tensor([1e4, -1e4])).tolist() == [1e4, 0.0]


def test_rms_norm_is_torchs() -> None:
    ours, theirs = RmsNorm(16, 1e-5), torch.nn.RMSNorm(16, eps=1e-5)
    with torch.no_grad():
        ours.weight.copy_(random(16, seed=1))
        theirs.weight.copy_(ours.weight)
    x = random(5, 3, 16) * torch.tensor([1e-4, 1.0, 1e3])[:, None]
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-6)
    low = ours(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), theirs(x.bfloat16().float()), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_is_torchs(bias: bool) -> None:
    ours, theirs = LayerNorm(16, 1e-5, bias=bias), torch.nn.LayerNorm(16, eps=1e-5, bias=bias)
    with torch.no_grad():
        for i, (one, two) in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
            one.copy_(random(16, seed=i))
            two.copy_(one)
    x = random(7, 16) * 3 + 2
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-6)
    assert ours(x.bfloat16()).dtype == torch.bfloat16


def test_rotation_is_multiplication_by_complex_numbers() -> None:
    positions, x = torch.tensor([0, 1, 5, 1000]), random(4, 3, 8)
    rotated = rotate(x, *rotary_tables(positions, 8, 10_000.0))
    numbers = torch.complex(x[..., :4], x[..., 4:])
    frequencies = 10_000.0 ** (-torch.arange(4) / 4)
    angles = positions[:, None, None] * frequencies
    turned = numbers * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(rotated, torch.cat([turned.real, turned.imag], dim=-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rotated[0], x[0])


def test_rotated_products_depend_on_the_distance_alone() -> None:
    q, k = random(1, 1, 8), random(1, 1, 8, seed=1)

    def product(i: int, j: int) -> float:
        a = rotate(q, *rotary_tables(torch.tensor([i]), 8, 100.0))
        b = rotate(k, *rotary_tables(torch.tensor([j]), 8, 100.0))
        return float((a * b).sum())

    assert product(3, 1) == pytest.approx(product(43, 41), abs=1e-4)
    assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)


def test_mlps_are_their_formulas() -> None:
    x = random(5, 6)
    gelu = GeluMlp(6, 10, bias=True)
    wanted = gelu.down(F.gelu(gelu.up(x), approximate="tanh"))
    torch.testing.assert_close(gelu(x), wanted, atol=1e-6, rtol=1e-5)
    gated = SwigluMlp(6, 10, bias=False)
    wanted = (F.silu(x @ gated.gate.weight.T) * (x @ gated.up.weight.T)) @ gated.down.weight.T
    torch.testing.assert_close(gated(x), wanted, atol=1e-6, rtol=1e-5)
    assert gated.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_fill_knows_biases_norms_and_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    bias, norm, matrix = torch.full((5,), 9.0), torch.full((5,), 9.0), torch.empty(200, 100)
    fill_("layers.0.mlp.up.bias", bias, 0.02, generator)
    fill_("layers.0.norm.weight", norm, 0.02, generator)
    fill_("layers.0.mlp.up.weight", matrix, 0.02, generator)
    assert bias.eq(0).all()
    assert norm.eq(1).all()
    assert float(matrix.std()) == pytest.approx(0.02, rel=0.02)
    assert abs(float(matrix.mean())) < 1e-3
    assert residual_std(0.02, 8) == pytest.approx(0.02 / math.sqrt(16))


def test_fill_draws_the_same_whatever_the_type() -> None:
    drawn = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.empty(8, 8, dtype=dtype)
        fill_("w", matrix, 1.0, torch.Generator().manual_seed(3))
        drawn.append(matrix)
    assert torch.equal(drawn[0].bfloat16(), drawn[1])
