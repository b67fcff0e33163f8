"""The GELU that keeps its slope is torch's."""

import pytest
import torch
from torch.nn import functional as F

from foundling.nn.gelu import gelu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_torchs(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-12, 12, 2001), torch.tensor([0.0, -0.0, 1e-6, 50.0, -50.0])]).to(dtype)
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    out, wanted = gelu(ours), F.gelu(theirs)
    tolerance = {"atol": 1e-6, "rtol": 1e-6} if dtype == torch.float32 else {"atol": 1e-3, "rtol": 2**-8}
    torch.testing.assert_close(out.double(), wanted, **tolerance)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    out.backward(grad)
    wanted.backward(grad.double())
    assert ours.grad is not None
    tolerance = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-3, "rtol": 2**-7}
    torch.testing.assert_close(ours.grad.double(), theirs.grad, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(gelu(x), F.gelu(x.float()).to(dtype))
