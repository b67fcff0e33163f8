"""Laws of the decoder, and the sizes that carry published names."""

import fnmatch
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from foundling.data.batch import Batch, rows_batch
from foundling.models.gpt import Cache, Config, Gpt, last_logits
from foundling.optim.losses.linear_cross_entropy import linear_cross_entropy
from tests.nn.test_attention import ROWS

SIZES = yaml.safe_load(files("foundling.models").joinpath("sizes.yaml").read_text(encoding="utf-8"))["gpt"]
VARIANTS = {
    "gpt2": {"math": "gpt2"},
    "qwen3": {"kv_heads": 2},
    "llama": {"kv_heads": 1, "qk_norm": False, "tied": False, "head_width": 10},
    "ngrams": {"ngrams": {"orders": [2, 4], "rows": 100}},
}


def small(variant: str, **keys: object) -> Gpt:
    values = {"vocab_size": 61, "layers": 2, "width": 24, "heads": 4, "max_positions": 32, **VARIANTS[variant], **keys}
    model = Config.model_validate(values).build()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


def packed(rows: list[torch.Tensor]) -> Batch:
    lengths = [len(row) for row in rows]
    return Batch(
        tokens_N=torch.cat(rows),
        positions_N=torch.cat([torch.arange(n) for n in lengths]),
        bounds_R1=torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32),
        max_row_length=max(lengths),
        targets_M=torch.cat(rows),
    )


def some_tokens(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 61, (n,), generator=generator) for n in lengths]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def test_no_future_token_changes_an_output(variant: str) -> None:
    model, (row,) = small(variant), some_tokens(12)
    before = model(packed([row])).hidden_MD
    for place in range(12):
        changed = row.clone()
        changed[place] = (changed[place] + 7) % 61
        differs = (model(packed([changed])).hidden_MD != before).any(1)
        assert not differs[:place].any()
        assert differs[place:].all()


@pytest.mark.parametrize("kernel", ["sdpa", ROWS])
def test_packed_rows_are_separate_rows(variant: str, kernel: Any) -> None:
    """In their answers, in the summed loss and in its gradients. tests/models/test_hub.py has them padded."""
    model, rows = small(variant), some_tokens(7, 12, 12, 1)
    model.set_kernel("sdpa")
    rolled = [replace(packed([row]), targets_M=row.roll(-1)) for row in rows]
    answers = [model(row).logits() for row in rolled]
    alone = torch.cat(answers)
    losses = [F.cross_entropy(x, row.targets_M, reduction="sum") for x, row in zip(answers, rolled, strict=True)]
    model.set_kernel(kernel)
    together = model(packed(rows)).logits()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    loss = F.cross_entropy(together, torch.cat([row.targets_M for row in rolled]), reduction="sum")
    torch.testing.assert_close(loss, torch.stack(losses).sum(), atol=1e-5, rtol=1e-5)
    parameters = dict(model.named_parameters())
    wanted = torch.autograd.grad(torch.stack(losses).sum(), list(parameters.values()))
    for name, one, two in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), wanted, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4, msg=name)
    chosen = torch.tensor([30, 0, 8])
    few = replace(packed(rows), target_index_M=chosen)
    torch.testing.assert_close(model(few).logits(), together[chosen])
    torch.testing.assert_close(model.encode(few), model(packed(rows)).hidden_MD)


def test_with_a_cache_as_without(variant: str) -> None:
    model, rows = small(variant), some_tokens(10, 10)
    whole = model(packed(rows)).logits().view(2, 10, -1)
    cache, tokens = Cache(num_rows=2, capacity=10), torch.stack(rows)
    for first, end in ((0, 4), (4, 5), (5, 8), (8, 9), (9, 10)):
        out = model.forward_cached(tokens[:, first:end], cache)
        torch.testing.assert_close(last_logits(out, 2), whole[:, end - 1], atol=1e-5, rtol=1e-5)


def test_rows_of_a_cache_change_places_whole(variant: str) -> None:
    model, rows = small(variant), some_tokens(6, 6)
    cache, tokens = Cache(num_rows=2, capacity=6), torch.stack(rows)
    model.forward_cached(tokens[:, :5], cache)
    swapped = torch.tensor([1, 0])
    cache.select(swapped)
    out = model.forward_cached(tokens[swapped, 5:], cache)
    torch.testing.assert_close(out.hidden_MD, model(packed(rows)).hidden_MD[[11, 5]], atol=1e-5, rtol=1e-5)


def test_ngrams_leave_the_first_answers_as_they_are() -> None:
    with_ngrams, without = small("ngrams"), small("ngrams", ngrams=None)
    for model in (with_ngrams, without):
        model.initialize(torch.Generator().manual_seed(0))
    assert not with_ngrams.get_parameter("ngrams.table.weight").any()
    batch = packed(some_tokens(9))
    torch.testing.assert_close(with_ngrams(batch).hidden_MD, without(batch).hidden_MD)


def test_initial_values_are_the_seeds_and_residual_writes_are_smaller(variant: str) -> None:
    models = [small(variant, width=64, layers=8) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        model.initialize(torch.Generator().manual_seed(seed))
    states = [model.state_dict() for model in models]
    name = "layers.0.attention.qkv.weight"
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0][name], states[2][name])
    inner, embedding, writes = (0.02, 0.02, 0.02 / 4) if variant == "gpt2" else (0.8 / 8, 0.05, 0.0)
    assert float(states[0][name].std()) == pytest.approx(inner, rel=0.05)
    assert float(states[0]["embedding.weight"].std()) == pytest.approx(embedding, rel=0.05)
    assert float(states[0]["layers.3.mlp.down.weight"].std()) == pytest.approx(writes, rel=0.05)
    assert float(states[0]["layers.3.attention.out.weight"].std()) == pytest.approx(writes, rel=0.05)


def test_flops_are_those_that_torch_counts(variant: str) -> None:
    length, num_rows = 64, 2
    model = small(variant, max_positions=length, width=48, vocab_size=300, head_width=None)
    tokens = torch.randint(0, 300, (num_rows, length + 1))
    batch = rows_batch(tokens[:, :-1], tokens[:, 1:])
    model.set_kernel("sdpa")
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # others are not counted on CPU
        out = model(batch)
        (out.logits().sum()).backward()
    counted = counter.get_total_flops() / (num_rows * length)
    c = model.config
    # torch counts attention as if all keys were seen
    whole_attention = c.layers * 4 * length * c.heads * c.key_width
    causal_attention = c.layers * 2 * (length + 1) * c.heads * c.key_width
    as_torch_counts = model.flops_per_token(length) - 3 * causal_attention + 3 * whole_attention
    assert counted == pytest.approx(as_torch_counts, rel=0.01)


def test_the_fused_loss_makes_only_the_flops_of_the_model() -> None:
    """Nothing is computed twice: forward and backward of the head are three products."""
    model = small("qwen3")
    tokens = torch.randint(0, 61, (2, 17))
    batch = rows_batch(tokens[:, :-1], tokens[:, 1:])
    out = model(batch)
    hidden, weight = out.hidden_MD.detach().requires_grad_(), out.head_weight_VD
    with FlopCounterMode(display=False) as counter:
        linear_cross_entropy(hidden, weight, batch.targets_M, 1.0, False)[0].backward()
    assert counter.get_total_flops() == 3 * 2 * 32 * 24 * 61


def test_every_pattern_of_the_plan_names_layers_and_every_matrix_of_a_block_is_named() -> None:
    names: dict[str, nn.Module] = {}
    for variant in VARIANTS:
        names |= {n: m for n, m in small(variant).named_modules() if any(True for _ in m.parameters(recurse=False))}
    for pattern in Gpt.parallel_plan:
        assert fnmatch.filter(names, pattern), pattern
    for name, module in names.items():
        if name.startswith("layers.") and isinstance(module, nn.Linear):
            assert any(fnmatch.fnmatch(name, pattern) for pattern in Gpt.parallel_plan), name


@pytest.mark.parametrize("size", SIZES)
def test_every_size_builds(size: str) -> None:
    with torch.device("meta"):
        model = Config.model_validate({"vocab_size": 50257, **SIZES[size]}).build()
    assert len(model.blocks()) == SIZES[size]["layers"]
    assert model.flops_per_token(256) > 6 * sum(p.numel() for layer in model.blocks() for p in layer.parameters())


@pytest.mark.parametrize(
    ("size", "vocab_size", "published"),
    [
        ("gpt2", 50257, 124_439_808),
        ("gpt2-medium", 50257, 354_823_168),
        ("gpt2-large", 50257, 774_030_080),
        ("gpt2-xl", 50257, 1_557_611_200),
        ("qwen3-0.6b", 151_936, 596_049_920),
        ("qwen3-1.7b", 151_936, 1_720_574_976),
        ("llama3.2-1b", 128_256, 1_235_814_400),
    ],
)
def test_published_sizes_have_the_published_number_of_weights(size: str, vocab_size: int, published: int) -> None:
    with torch.device("meta"):
        model = Config.model_validate({"vocab_size": vocab_size, **SIZES[size]}).build()
    assert sum(p.numel() for p in model.parameters()) == published


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"width": 25}, "width must be a multiple of heads"),
        ({"kv_heads": 3}, "heads must be a multiple of kv_heads"),
        ({"math": "gpt2", "kv_heads": 2}, "math gpt2 has"),
        ({"heads": 8, "width": 24}, "even head width"),
    ],
)
def test_shapes_that_do_not_fit_are_told(keys: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Config.model_validate({"vocab_size": 61, "layers": 2, "width": 24, "heads": 4, **keys})
