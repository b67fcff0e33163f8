"""Kernels are compiled when they are first called, and no command waits for a compiler that it does not need."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from foundling.optim.compile_lazily import compile_lazily


def test_compiled_at_the_first_call_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Callable[..., Any]] = []

    def compile_(function: Callable[..., Any], *, dynamic: bool) -> Callable[..., Any]:
        assert dynamic
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile_)

    def doubled(x: int, plus: int = 0) -> int:
        return 2 * x + plus

    lazy = compile_lazily(doubled)
    assert not compiled
    assert [lazy(2), lazy(2, plus=3)] == [4, 7]
    assert compiled == [doubled]


def test_training_is_imported_without_the_compiler() -> None:
    code = (
        "import sys, foundling.train.pretrain, foundling.train.finetune, foundling.serve.load; "
        "found = {'torch._dynamo', 'torch._inductor'} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
