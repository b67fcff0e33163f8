"""Kernels with and without the compiler."""

from collections.abc import Iterator

import pytest
import torch

from foundling.nn import blockwise


@pytest.fixture
def only_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where no C++ kernel can be compiled."""
    monkeypatch.setattr(blockwise, "_native_softmax", lambda dtype: None)


@pytest.fixture
def eager_kernels(only_torch: None) -> Iterator[None]:
    """Compiled functions run as plain torch: for what stands around them, in many shapes, which would cost a
    compilation each."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def native_kernels() -> Iterator[None]:
    """Kernels in C++ where there are any, the others as plain torch."""
    if blockwise._native_softmax(torch.float32) is None:
        pytest.skip("no C++ compiler here that makes the kernels")
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def compiled_kernels(only_torch: None) -> Iterator[None]:
    """Nothing is compiled yet, and a shape too many fails: torch would run it as plain torch and say nothing."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield
