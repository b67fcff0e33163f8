"""The recursions of crf.py in C++ (crf.cpp), row by row, for CPU: what it calls where the machine has them."""

# Shapes: M = words of all rows, R = rows, C = tags.

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from foundling.core.native import native_kernel

Scores = tuple[Tensor, Tensor, Tensor]
"""Of neighbouring tags [C, C], of first and of last tags [C]."""

LEAST = 1e-200
"""Probability, beside the likeliest state's, down to which sums of products are exact in fp64."""
_VITERBI: list[Any] = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 3
_ARGTYPES: dict[str, list[Any]] = {
    "crf_forward": [ctypes.c_void_p] * 8 + [ctypes.c_int64] * 3 + [ctypes.c_double],
    "crf_backward": [ctypes.c_void_p] * 9 + [ctypes.c_int64] * 2,
    "crf_viterbi_fp32": _VITERBI,
    "crf_viterbi_fp64": _VITERBI,
}


@cache
def _native(name: str) -> Callable[..., Any] | None:
    """A kernel of `crf.cpp`, where the machine has it."""
    return native_kernel(Path(__file__).with_name("crf.cpp"), name, _ARGTYPES[name])


def serves(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors, and the machine has them."""
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    return on_cpu and _native("crf_forward") is not None


def log_partition(emissions_MC: Tensor, bounds_R1: Tensor, tags_M: Tensor | None, scores: Scores) -> Tensor:
    """log Z, less the score of the tags where they are given, fp64 [R]; once differentiable."""
    keep = torch.is_grad_enabled() and any(given.requires_grad for given in (emissions_MC, *scores))
    found_R: Tensor = _Native.apply(emissions_MC, *scores, bounds_R1, tags_M, keep)
    return found_R


@dataclass(frozen=True)
class _Recursion:
    """A forward recursion of the kernel, and what it keeps for the way back."""

    bounds_R1: Tensor
    tags_M: Tensor | None
    scores: Tensor
    """Of neighbours, first and last tags, one behind the other, fp64."""
    shape: tuple[int, int]
    found_R: Tensor
    in_logs_R: Tensor
    """Which rows were added up in logarithms."""
    kept: tuple[Tensor, Tensor] | None

    @classmethod
    def of(
        cls, emissions_MC: Tensor, bounds_R1: Tensor, tags_M: Tensor | None, scores: Scores, keep: bool
    ) -> "_Recursion":
        emissions_MC = emissions_MC.detach().double().contiguous()
        (num_words, num_tags), num_rows = emissions_MC.shape, len(bounds_R1) - 1
        bounds_R1 = bounds_R1.to("cpu", torch.int64).contiguous()
        tags_M = None if tags_M is None else tags_M.to(torch.int64).contiguous()
        flat = _flat(scores, num_tags, torch.float64)
        if tags_M is not None and len(tags_M) != num_words:
            raise IndexError(f"one tag a word: {num_words} words, {len(tags_M)} tags")
        found_R = torch.empty(num_rows, dtype=torch.float64)
        in_logs_R = torch.empty(num_rows, dtype=torch.bool)
        width = -(-num_tags // 8) * 8
        kept = (found_R.new_empty(num_words, width), found_R.new_empty(num_words, width)) if keep else None
        _call(
            "crf_forward", emissions_MC, bounds_R1, tags_M, flat, found_R, *(kept or (None, None)),
            in_logs_R, num_words, num_rows, num_tags, LEAST,
        )  # fmt: skip
        return cls(bounds_R1, tags_M, flat, (num_words, num_tags), found_R, in_logs_R, kept)

    def gradients(self, factors_R: Tensor) -> tuple[Tensor, ...]:
        """Of the sum of all rows' results x their factors: by emissions and by scores, fp64."""
        assert self.kept is not None
        num_tags = self.shape[1]
        of_words_MC, of_scores = self.scores.new_empty(self.shape), torch.zeros_like(self.scores)
        _call(
            "crf_backward", factors_R.contiguous(), self.bounds_R1, self.tags_M, self.scores, *self.kept,
            self.in_logs_R, of_words_MC, of_scores, len(factors_R), num_tags,
        )  # fmt: skip
        between, start_C, end_C = of_scores.split([num_tags**2, num_tags, num_tags])
        return of_words_MC, between.view(num_tags, num_tags), start_C, end_C


class _Native(torch.autograd.Function):
    """A row's factor is known only on the way back, so that is when the marginals are made."""

    @staticmethod
    def forward(
        ctx: Any,
        emissions_MC: Tensor,
        between_CC: Tensor,
        start_C: Tensor,
        end_C: Tensor,
        bounds_R1: Tensor,
        tags_M: Tensor | None,
        keep: bool,
    ) -> Any:
        scores = (between_CC, start_C, end_C)
        ctx.recursion = _Recursion.of(emissions_MC, bounds_R1, tags_M, scores, keep)
        ctx.save_for_backward(bounds_R1, tags_M)
        ctx.dtypes = emissions_MC.dtype, between_CC.dtype
        return ctx.recursion.found_R.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_R: Tensor) -> Any:
        _ = ctx.saved_tensors  # fails if they have been changed since: the kernel would read wherever they point
        of_words_MC, *of_scores = ctx.recursion.gradients(grad_R)
        to_words, to_scores = ctx.dtypes
        return of_words_MC.to(to_words), *(gradient.to(to_scores) for gradient in of_scores), None, None, None


def marginals(emissions_MC: Tensor, bounds_R1: Tensor, scores: Scores) -> Tensor:
    """Probability of each tag for each word, fp64 [M, C], without gradients."""
    recursion = _Recursion.of(emissions_MC, bounds_R1, None, scores, keep=True)
    return recursion.gradients(torch.ones_like(recursion.found_R))[0]


def log_ahead(emissions_MC: Tensor, bounds_R1: Tensor, scores: Scores) -> Tensor:
    """log of what stands before a word and at it, by its tag, less some number of each word: fp64 [M, C]."""
    recursion = _Recursion.of(emissions_MC, bounds_R1, None, scores, keep=True)
    assert recursion.kept is not None
    ahead_MC = recursion.kept[0][:, : recursion.shape[1]]
    in_logs_M = recursion.in_logs_R.repeat_interleave(recursion.bounds_R1.diff())
    return torch.where(in_logs_M[:, None], ahead_MC, ahead_MC.log())


def viterbi(emissions_MC: Tensor, bounds_R1: Tensor, scores: Scores) -> tuple[Tensor, Tensor]:
    """The likeliest tags, int64 [M], and their score [R], in the emissions' type: fp32 or fp64."""
    emissions_MC = emissions_MC.contiguous()
    (num_words, num_tags), num_rows = emissions_MC.shape, len(bounds_R1) - 1
    bounds_R1 = bounds_R1.to("cpu", torch.int64).contiguous()
    flat = _flat(scores, num_tags, emissions_MC.dtype)
    tags_M, best_R = torch.empty(num_words, dtype=torch.int64), emissions_MC.new_empty(num_rows)
    name = "crf_viterbi_fp32" if emissions_MC.dtype == torch.float32 else "crf_viterbi_fp64"
    _call(name, emissions_MC, bounds_R1, flat, tags_M, best_R, num_words, num_rows, num_tags)
    return tags_M, best_R


def _flat(scores: Scores, num_tags: int, dtype: torch.dtype) -> Tensor:
    """Scores of neighbours, first and last tags as the kernels read them."""
    shapes = tuple(tuple(part.shape) for part in scores)
    if shapes != ((num_tags, num_tags), (num_tags,), (num_tags,)):
        raise IndexError(f"transitions of {num_tags} tags have other shapes: {shapes}")
    return torch.cat([part.detach().to(dtype).reshape(-1) for part in scores])


def _call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Calls a kernel. It reads where tags and bounds point, so these are looked at first, there."""
    kernel = _native(name)
    assert kernel is not None
    if kernel(*(given.data_ptr() if isinstance(given, Tensor) else given for given in arguments)):
        raise IndexError("bounds must ascend from 0 to the number of words, and tags be among those scored")
