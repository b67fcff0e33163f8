"""Kernels with and without the compiler."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def eager_kernels() -> Iterator[None]:
    """Compiled functions run as plain torch: for what stands around them, in many shapes, which would cost a
    compilation each."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def compiled_kernels() -> Iterator[None]:
    """Nothing is compiled yet, and a shape too many fails: torch would run it as plain torch and say nothing."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield
