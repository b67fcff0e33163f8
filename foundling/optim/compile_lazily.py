"""Kernels that torch compiles, made when they are first called."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def compile_lazily(function: F) -> F:
    """`torch.compile(function, dynamic=True)`, at its first call: one compilation serves all sizes.

    To import the compiler takes longer than to import torch, and what compiles nothing need not wait for it.
    """
    made: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(torch.compile(function, dynamic=True))
        return made[0](*args, **kwargs)

    return call  # type: ignore[return-value]
