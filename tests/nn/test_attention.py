"""One law of attention, three kernels. The reference is the plain formula, row by row."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from foundling.nn import blockwise
from foundling.nn.attention import Kernel, attend, attend_cached

WIDTH = 8


def inputs(lengths: Sequence[int], heads: int, groups: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(lengths) + heads)
    num = sum(lengths)
    tensors = (torch.randn(num, h, WIDTH, generator=generator).to(dtype) for h in (heads, groups, groups))
    return [t.requires_grad_() for t in tensors]


def bounds(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)


def run(tensors: Sequence[Tensor], lengths: Sequence[int], kernel: Kernel, causal: bool = True) -> Tensor:
    q, k, v = tensors
    return attend(q, k, v, bounds(lengths), max(lengths), causal=causal, kernel=kernel)


def plain(tensors: Sequence[Tensor], lengths: Sequence[int], causal: bool = True) -> Tensor:
    """softmax(q k^T / sqrt(K)) v with a mask, one row and one head at a time, in fp64."""
    q, k, v = (t.double() for t in tensors)
    per_group = q.shape[1] // k.shape[1]
    outputs, start = [], 0
    for length in lengths:
        row = slice(start, start + length)
        heads = []
        for head in range(q.shape[1]):
            scores = q[row, head] @ k[row, head // per_group].T / math.sqrt(WIDTH)
            if causal:
                scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(-1) @ v[row, head // per_group])
        outputs.append(torch.stack(heads, dim=1))
        start += length
    return torch.cat(outputs)


SHAPES = [
    ([5], 2, 2),
    ([6, 6, 6], 4, 2),
    ([3, 7, 7, 1], 4, 1),
    ([11, 4], 3, 3),
]


@pytest.mark.parametrize(("lengths", "heads", "groups"), SHAPES)
@pytest.mark.parametrize("causal", [True, False])
def test_sdpa_is_the_formula(lengths: list[int], heads: int, groups: int, causal: bool) -> None:
    tensors = inputs(lengths, heads, groups)
    torch.testing.assert_close(
        run(tensors, lengths, "sdpa", causal).double(), plain(tensors, lengths, causal), atol=1e-6, rtol=1e-5
    )


@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize("block_rows", [256, 4])
@pytest.mark.parametrize(("lengths", "heads", "groups"), SHAPES)
def test_blockwise_is_sdpa_value_and_gradients(
    lengths: list[int], heads: int, groups: int, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 4 make rows of 5 to 11 tokens span several: the path of rows longer than BLOCK_ROWS."""
    monkeypatch.setattr(blockwise, "BLOCK_ROWS", block_rows)
    tensors = inputs(lengths, heads, groups)
    weights = torch.randn(sum(lengths), heads, WIDTH, generator=torch.Generator().manual_seed(1))
    results = []
    for kernel in ("sdpa", "blockwise"):
        out = run(tensors, lengths, kernel)
        results.append((out.detach(), *torch.autograd.grad((out * weights).sum(), tensors)))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


@pytest.mark.xdist_group("compile")
def test_blockwise_with_rows_longer_than_a_block_of_its_own_size() -> None:
    lengths = [300, 300, 20]
    tensors = inputs(lengths, 2, 1)
    results = []
    for kernel in ("sdpa", "blockwise"):
        out = run(tensors, lengths, kernel)
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), tensors)))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(two, one, atol=2e-5, rtol=1e-5)


@pytest.mark.xdist_group("compile")
def test_blockwise_in_bf16_is_as_close_as_bf16_is() -> None:
    lengths = [9, 9, 5]
    tensors = inputs(lengths, 4, 2, torch.bfloat16)
    out = run(tensors, lengths, "blockwise")
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), plain(tensors, lengths), atol=3e-2, rtol=3e-2)
    whole = [t.detach().float().requires_grad_() for t in tensors]
    found = torch.autograd.grad(out.float().square().sum(), tensors)
    wanted = torch.autograd.grad(run(whole, lengths, "sdpa").square().sum(), whole)
    for one, two in zip(wanted, found, strict=True):
        assert (two.float() - one).norm() < 0.03 * one.norm()


@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize("kernel", ["sdpa", "blockwise"])
def test_a_later_token_and_another_row_change_nothing(kernel: Kernel) -> None:
    lengths, place = [6, 9, 4], 10  # token 4 of the second row
    tensors = [t.detach() for t in inputs(lengths, 4, 2)]
    before = run(tensors, lengths, kernel)
    changed = [t.clone() for t in tensors]
    for t in changed:
        t[place] += 3.0
    after = run(changed, lengths, kernel)
    differs = (after != before).flatten(1).any(1)
    assert not differs[:place].any(), "earlier tokens and rows"
    assert differs[place:15].all(), "the token and those after it in its row"
    assert not differs[15:].any(), "later rows"


@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize("kernel", ["sdpa", "blockwise"])
def test_packed_rows_are_each_row_alone(kernel: Kernel) -> None:
    lengths = [6, 9, 9, 1]
    tensors = [t.detach() for t in inputs(lengths, 4, 2)]
    together, start = run(tensors, lengths, kernel), 0
    for length in lengths:
        alone = run([t[start : start + length] for t in tensors], [length], kernel)
        torch.testing.assert_close(together[start : start + length], alone, atol=1e-6, rtol=1e-6)
        start += length


def test_attention_from_a_cache_is_the_last_tokens_of_the_whole() -> None:
    tensors = [t.detach() for t in inputs([7], 4, 2)]
    whole = run(tensors, [7], "sdpa")
    q, k, v = (t.transpose(0, 1)[None] for t in tensors)
    one = attend_cached(q[:, :, 6:], k, v, None)
    torch.testing.assert_close(one[0].transpose(0, 1), whole[6:])
    visible = (torch.arange(7)[None, :] <= torch.arange(4, 7)[:, None])[None]
    three = attend_cached(q[:, :, 4:], k, v, visible)
    torch.testing.assert_close(three[0].transpose(0, 1), whole[4:])


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2)])
def test_varlen_is_sdpa(heads: int, groups: int, causal: bool) -> None:
    lengths = [64, 64, 17, 130]
    generator = torch.Generator("cuda").manual_seed(0)
    tensors = [
        torch.randn(sum(lengths), h, 64, generator=generator, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for h in (heads, groups, groups)
    ]
    weights = torch.randn(sum(lengths), heads, 64, generator=generator, device="cuda")
    results = []
    for kernel in ("sdpa", "varlen"):
        where = "cpu" if kernel == "sdpa" else "cuda"
        out = attend(*tensors, bounds(lengths).to(where), max(lengths), causal=causal, kernel=kernel)
        results.append((out.detach(), *torch.autograd.grad((out.float() * weights).sum(), tensors)))
    for one, two in zip(*results, strict=True):
        assert (one.float() - two.float()).norm() < 0.02 * one.float().norm()
