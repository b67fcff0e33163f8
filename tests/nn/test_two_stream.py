"""The fast two-stream attention is the plain one: values and all gradients, whatever the rows."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from foundling.nn.relative import Relative, num_distances
from foundling.nn.two_stream import Streams, plain_two_stream
from foundling.nn.two_stream_blockwise import blockwise_two_stream

HEADS, WIDTH = 3, 8


def bounds(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)


def random_streams(content: list[int], queries: list[int], memory: int = 0, seed: int = 0) -> Streams:
    """Rows with so many content and query states; each looks from a random place with a random limit."""
    generator = torch.Generator().manual_seed(seed)
    keys = [memory + n for n in content]
    places = [torch.arange(memory, memory + n) for n in content]
    asked = [
        torch.randperm(n, generator=generator)[:q].sort()[0] + memory for n, q in zip(content, queries, strict=False)
    ]
    num_states, num_keys = sum(content) + sum(queries), sum(keys)
    return Streams(
        content_bounds_R1=bounds(content),
        query_bounds_R1=bounds(queries),
        key_bounds_R1=bounds(keys),
        num_content=sum(content),
        max_keys=max(keys),
        place_U=torch.cat(places + asked),
        limit_U=torch.randint(0, 4, (num_states,), generator=generator, dtype=torch.int32),
        rank_S=torch.randint(-1, 4, (num_keys,), generator=generator, dtype=torch.int32),
        segment_U=torch.randint(0, 3, (num_states,), generator=generator, dtype=torch.int32),
        segment_S=torch.randint(0, 3, (num_keys,), generator=generator, dtype=torch.int32),
    )


def inputs(streams: Streams, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    heads = (HEADS, WIDTH)
    shapes = {
        "q": (len(streams.place_U), *heads),
        "k": (len(streams.rank_S), *heads),
        "v": (len(streams.rank_S), *heads),
        "distance": (num_distances(streams.max_keys), *heads),
        "segment": (2, *heads),
        "content_bias": heads,
        "distance_bias": heads,
        "segment_bias": heads,
    }
    return {name: torch.randn(shape, generator=generator).to(dtype).requires_grad_() for name, shape in shapes.items()}


def attend(function: Any, x: dict[str, Tensor], streams: Streams, variant: str) -> Tensor:
    relative = None
    if variant != "plain":
        relative = Relative(x["distance"], x["segment"], x["content_bias"], x["distance_bias"], x["segment_bias"])
    if variant != "segments":
        streams = replace(streams, segment_U=None, segment_S=None)
        relative = relative and replace(relative, segment_2HK=None, segment_bias_HK=None)
    return function(x["q"], x["k"], x["v"], streams, relative)


ROWS = {
    "one": ([9], [4], 0),
    "equal": ([10, 10, 10], [2, 2, 2], 0),
    "mixed": ([5, 12, 12, 7, 3], [1, 3, 3, 0, 3], 0),
    "memory": ([6, 6, 4], [2, 2, 2], 5),
    "content": ([6, 6], [0, 0], 0),
}


def assert_fast_is_plain(rows: str, variant: str) -> None:
    streams = random_streams(*ROWS[rows])
    results = []
    for function in (plain_two_stream, blockwise_two_stream):
        x = inputs(streams, torch.float32)
        out = attend(function, x, streams, variant)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        (out * weight).sum().backward()
        results.append((out, {name: tensor.grad for name, tensor in x.items()}))
    (plain, wanted), (fast, found) = results
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    for name, grad in wanted.items():
        if grad is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(found[name], grad, atol=2e-5, rtol=1e-5, msg=name)


@pytest.mark.usefixtures("eager_kernels")
@pytest.mark.parametrize("variant", ["plain", "relative", "segments"])
@pytest.mark.parametrize("rows", ROWS)
def test_fast_is_plain(rows: str, variant: str) -> None:
    if rows == "content":
        streams = random_streams(*ROWS[rows])
        assert streams.num_content == len(streams.place_U)
    assert_fast_is_plain(rows, variant)


@pytest.mark.usefixtures("compiled_kernels")
@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize(
    ("rows", "variant"),
    [
        ("equal", "plain"),
        ("equal", "relative"),
        ("memory", "segments"),
        ("content", "plain"),
    ],
)
def test_compiled_fast_is_plain(rows: str, variant: str) -> None:
    """Each kernel and each of its optional inputs; rows in a group and alone, with memory, and without queries.

    Segments are tried with memory alone: its keys are more than its states, and sizes that differ are the general
    case to the compiler."""
    assert_fast_is_plain(rows, variant)
