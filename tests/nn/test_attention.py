"""One law of attention, four kernels. The reference is the plain formula, row by row."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from foundling.nn import attention, blockwise
from foundling.nn.attention import Kernel, attend, attend_cached, training_kernel
from foundling.nn.row_attention import knows_type

WIDTH = 8
ROWS = pytest.param(
    "rows",
    marks=pytest.mark.skipif(not knows_type(torch.float32), reason="no C++ compiler here that makes the kernels"),
)


def inputs(lengths: Sequence[int], heads: int, groups: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(lengths) + heads)
    num = sum(lengths)
    tensors = (torch.randn(num, h, WIDTH, generator=generator).to(dtype) for h in (heads, groups, groups))
    return [t.requires_grad_() for t in tensors]


def bounds(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)


def run(tensors: Sequence[Tensor], lengths: Sequence[int], kernel: Kernel, **seen: Any) -> Tensor:
    q, k, v = tensors
    return attend(q, k, v, bounds(lengths), max(lengths), kernel=kernel, **({"causal": True} | prefixes(seen)))


def prefixes(seen: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.tensor(value) if name == "prefix_R" else value for name, value in seen.items()}


def plain(tensors: Sequence[Tensor], lengths: Sequence[int], **seen: Any) -> Tensor:
    """softmax(q k^T / sqrt(K)) v with a mask, one row and one head at a time, in fp64."""
    q, k, v = (t.double() for t in tensors)
    per_group = q.shape[1] // k.shape[1]
    outputs, start = [], 0
    for number, length in enumerate(lengths):
        row = slice(start, start + length)
        hidden = torch.zeros(length, length).bool()
        for i in range(length):
            for j in range(length):
                later = seen.get("causal", True) and j > i and not ("prefix_R" in seen and j < seen["prefix_R"][number])
                far = seen.get("window") is not None and abs(i - j) > seen["window"] // 2
                hidden[i, j] = later or far
        heads = []
        for head in range(q.shape[1]):
            scores = q[row, head] @ k[row, head // per_group].T / math.sqrt(WIDTH)
            heads.append(scores.masked_fill(hidden, -math.inf).softmax(-1) @ v[row, head // per_group])
        outputs.append(torch.stack(heads, dim=1))
        start += length
    return torch.cat(outputs)


SHAPES = [
    ([5], 2, 2),
    ([6, 6, 6], 4, 2),
    ([3, 7, 7, 1], 4, 1),
    ([11, 4], 3, 3),
]


SEEN: list[dict[str, Any]] = [
    {"causal": True},
    {"causal": False},
    {"causal": False, "window": 4},
    {"causal": True, "window": 6},
    {"causal": True, "prefix_R": [2, 4, 0, 1]},
]


def cut(seen: dict[str, Any], lengths: list[int]) -> dict[str, Any]:
    return seen | {"prefix_R": seen["prefix_R"][: len(lengths)]} if "prefix_R" in seen else seen


@pytest.mark.parametrize(("lengths", "heads", "groups"), SHAPES)
@pytest.mark.parametrize("seen", SEEN)
def test_sdpa_is_the_formula(lengths: list[int], heads: int, groups: int, seen: dict[str, Any]) -> None:
    tensors, seen = inputs(lengths, heads, groups), cut(seen, lengths)
    torch.testing.assert_close(
        run(tensors, lengths, "sdpa", **seen).double(), plain(tensors, lengths, **seen), atol=1e-6, rtol=1e-5
    )


def assert_is_sdpa(tested: Kernel, lengths: list[int], heads: int, groups: int, seen: dict[str, Any]) -> None:
    tensors, seen = inputs(lengths, heads, groups), cut(seen, lengths)
    weights = torch.randn(sum(lengths), heads, WIDTH, generator=torch.Generator().manual_seed(1))
    results = []
    kernels: tuple[Kernel, ...] = ("sdpa", tested)
    for kernel in kernels:
        out = run(tensors, lengths, kernel, **seen)
        results.append((out.detach(), *torch.autograd.grad((out * weights).sum(), tensors)))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernels", ["eager_kernels", "native_kernels"])
@pytest.mark.parametrize("block_rows", [256, 4])
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize(("lengths", "heads", "groups"), SHAPES)
def test_blockwise_is_sdpa_value_and_gradients(
    lengths: list[int],
    heads: int,
    groups: int,
    seen: dict[str, Any],
    block_rows: int,
    kernels: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks of 4 make rows of 5 to 11 tokens span several: the path of rows longer than BLOCK_ROWS."""
    request.getfixturevalue(kernels)
    monkeypatch.setattr(blockwise, "BLOCK_ROWS", block_rows)
    assert_is_sdpa("blockwise", lengths, heads, groups, seen)


@pytest.mark.usefixtures("native_kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_softmax_is_torch_s(dtype: torch.dtype) -> None:
    """Wide rows and wild scores, masked by row: weights to the rounding of their type, sums to that of fp32."""
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randn(3, 2, 5, 307, generator=generator) * 40).to(dtype)
    low = torch.randint(100, 250, (3, 5), generator=generator, dtype=torch.int32)
    block = blockwise._Block(0, 5, 100, 407, low, low + torch.randint(1, 150, (3, 5), generator=generator).int())
    found = scores.clone()
    inverse = blockwise._softmax_(found, block, 0.125)
    wanted = scores.clone()
    wanted_inverse = blockwise._softmax(wanted, block.low_RB, block.high_RB, 100, 0.125)
    torch.testing.assert_close(inverse, wanted_inverse, atol=0, rtol=2e-6)
    torch.testing.assert_close(found, wanted, atol=1e-30, rtol=2e-6 if dtype == torch.float32 else 2**-7)


@pytest.mark.usefixtures("native_kernels")
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_softmax_hides_nothing(dtype: torch.dtype, poison: float) -> None:
    """What is not finite shows in the row's sum; other rows know nothing of it."""
    scores = torch.zeros(1, 1, 2, 40, dtype=dtype)
    scores[0, 0, 0, 33] = poison
    inverse = blockwise._softmax_(scores, blockwise._Block(0, 2, 0, 40, None, None), 1.0)
    assert inverse[0, 0, 0, 0].isnan()
    assert inverse[0, 0, 1, 0] == 1 / 40


@pytest.mark.usefixtures("compiled_kernels")
@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize("seen", SEEN)
def test_compiled_blockwise_is_sdpa_value_and_gradients(seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in a group and alone, of several blocks, heads that share keys. No two sizes agree, which torch would take
    for a law of theirs and compile anew where it ends."""
    monkeypatch.setattr(blockwise, "BLOCK_ROWS", 5)
    assert_is_sdpa("blockwise", [7, 7, 7, 11], 6, 2, seen)


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
@pytest.mark.parametrize("kernel", ["sdpa", "blockwise", ROWS])
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
@pytest.mark.parametrize("kernel", ["sdpa", "blockwise", ROWS])
def test_packed_rows_are_each_row_alone(kernel: Kernel) -> None:
    lengths = [6, 9, 9, 1]
    tensors = [t.detach() for t in inputs(lengths, 4, 2)]
    together, start = run(tensors, lengths, kernel), 0
    for length in lengths:
        alone = run([t[start : start + length] for t in tensors], [length], kernel)
        torch.testing.assert_close(together[start : start + length], alone, atol=1e-6, rtol=1e-6)
        start += length


@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize(
    ("kernel", "block_rows"), [("blockwise", 256), ("blockwise", 4), pytest.param(*ROWS.values, 0, marks=ROWS.marks)]
)
def test_rows_may_attend_to_those_of_another_sequence(
    kernel: Kernel, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "BLOCK_ROWS", block_rows)
    lengths, others = [6, 6, 6, 3], [4, 4, 9, 9]
    q = inputs(lengths, 4, 2)[0]
    _, k, v = inputs(others, 4, 2)
    results = []
    for one in ("sdpa", kernel):
        given: Any = {"k_bounds_R1": bounds(others), "max_k_length": 9, "kernel": one}
        out = attend(q, k, v, bounds(lengths), 6, causal=False, **given)
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    start = k_start = 0
    for length, other in zip(lengths, others, strict=True):
        for head in range(4):
            scores = q[start : start + length, head] @ k[k_start : k_start + other, head // 2].T / math.sqrt(WIDTH)
            row = scores.softmax(-1) @ v[k_start : k_start + other, head // 2]
            torch.testing.assert_close(results[0][0][start : start + length, head], row, atol=1e-6, rtol=1e-5)
        start, k_start = start + length, k_start + other


@pytest.mark.parametrize("kernel", [ROWS])
@pytest.mark.parametrize(("lengths", "heads", "groups"), SHAPES)
@pytest.mark.parametrize("seen", SEEN)
def test_rows_are_sdpa_value_and_gradients(
    kernel: Kernel, lengths: list[int], heads: int, groups: int, seen: dict[str, Any]
) -> None:
    assert_is_sdpa(kernel, lengths, heads, groups, seen)


@pytest.mark.parametrize("kernel", [ROWS])
@pytest.mark.parametrize("width", [20, 32, 64, 128])
@pytest.mark.parametrize(
    "seen",
    [
        {"causal": True},
        {"causal": False, "window": 64},
        {"causal": True, "window": 150},
        {"causal": True, "prefix_R": [90, 0, 130, 1]},
    ],
)
def test_rows_of_several_blocks_and_every_tile(kernel: Kernel, width: int, seen: dict[str, Any]) -> None:
    """Rows of more queries than a block, and widths of one to many vector registers; q, k and v lie in one tensor."""
    lengths, generator = [131, 49, 150, 1], torch.Generator().manual_seed(2)
    whole = torch.randn(sum(lengths), 6, width, generator=generator, requires_grad=True)
    weights = torch.randn(sum(lengths), 2, width, generator=generator)
    results = []
    for one in ("sdpa", kernel):
        tensors = [whole[:, :2], whole[:, 2:4], whole[:, 4:]]
        out = run(tensors, lengths, one, **seen)
        results.append((out.detach(), *torch.autograd.grad((out * weights).sum(), whole)))
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("kernel", [ROWS])
def test_rows_in_bf16_are_as_close_as_bf16_is(kernel: Kernel) -> None:
    lengths = [9, 70, 5]
    tensors = inputs(lengths, 4, 2, torch.bfloat16)
    whole = [t.detach().float().requires_grad_() for t in tensors]
    out, wanted = run(tensors, lengths, kernel), run(whole, lengths, "sdpa")
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), wanted, atol=4e-3, rtol=4e-3)  # one rounding, of the result
    found = torch.autograd.grad(out.float().square().sum(), tensors)
    for one, two in zip(torch.autograd.grad(wanted.square().sum(), whole), found, strict=True):
        assert (two.float() - one).norm() < 0.01 * one.norm()


@pytest.mark.parametrize("kernel", [ROWS])
@pytest.mark.parametrize(("lengths", "longest"), [([5, 20], 19), ([5, 21], 21)])
def test_rows_read_nothing_outside(kernel: Kernel, lengths: list[int], longest: int) -> None:
    q, k, v = inputs([5, 20], 2, 2)
    with pytest.raises(AssertionError, match="must"):
        attend(q, k, v, bounds(lengths), longest, causal=True, kernel=kernel)


@pytest.mark.parametrize("kernel", [ROWS])
def test_rows_hide_no_nan(kernel: Kernel) -> None:
    lengths = [5, 20]
    tensors = [t.detach() for t in inputs(lengths, 2, 2)]
    tensors[1][7, 0, 3] = math.nan
    out = run(tensors, lengths, kernel)
    assert out[7:, 0].isnan().all(), "every query that sees the key"
    assert out[:7].isfinite().all()
    assert out[:, 1].isfinite().all()


def test_the_kernel_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, bf16, fp32 = torch.device("cpu"), torch.bfloat16, torch.float32
    monkeypatch.setattr(attention, "knows_type", lambda dtype: dtype in (bf16, fp32))
    for amx, long in ((False, "rows"), (True, "blockwise")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=amx: found)
        assert training_kernel(cpu, bf16, 128, compiled=True) == "rows"
        assert training_kernel(cpu, bf16, 256, compiled=True) == long
        assert training_kernel(cpu, fp32, 256, compiled=True) == "rows"
        assert training_kernel(cpu, bf16, 256, compiled=False) == "rows"
    assert training_kernel(torch.device("cuda"), bf16, 256, compiled=True) == "varlen"
    assert training_kernel(torch.device("cuda"), fp32, 256, compiled=True) == "sdpa", "flash attention knows no fp32"
    monkeypatch.setattr(attention, "knows_type", lambda dtype: False)
    assert training_kernel(cpu, fp32, 64, compiled=True) == "blockwise"
    assert training_kernel(cpu, fp32, 64, compiled=False) == "sdpa"


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
        q, k, v = tensors
        out = attend(q, k, v, bounds(lengths).to(where), max(lengths), causal=causal, kernel=kernel)
        results.append((out.detach(), *torch.autograd.grad((out.float() * weights).sum(), tensors)))
    for one, two in zip(*results, strict=True):
        assert (one.float() - two.float()).norm() < 0.02 * one.float().norm()
