"""Initial values by scheme: the measured spread of every parameter of every family."""

import math
from typing import Any

import pytest
import torch

from foundling.core.registry import load_part

FAMILIES: list[dict[str, Any]] = [
    {"family": "gpt", "math": "gpt2"},
    {"family": "gpt", "math": "modern", "kv_heads": 2},
    {"family": "bert", "math": "bert"},
    {"family": "bert", "math": "modern"},
    {"family": "xlnet"},
    {"family": "seq2seq", "math": "2017"},
    {"family": "seq2seq", "math": "modern"},
]
SHAPE = {"vocab_size": 500, "layers": 3, "width": 64, "heads": 4, "mlp_width": 128, "max_positions": 64}


@pytest.fixture(params=FAMILIES, ids=lambda wanted: "-".join([wanted["family"], wanted.get("math", "")]))
def wanted(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def spreads(wanted: dict[str, Any], **settings: Any) -> dict[str, tuple[float, tuple[int, ...]]]:
    """Name -> (root mean square, shape) of every parameter that has more than 200 values and is no vector."""
    family = wanted["family"]
    rest = {k: v for k, v in wanted.items() if k != "family"}
    config = load_part("models", family).Config.model_validate({**SHAPE, **rest, **settings})
    model = config.build()
    model.initialize(torch.Generator().manual_seed(0))
    return {
        name: (parameter.detach().square().mean().sqrt().item(), tuple(parameter.shape))
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and parameter.numel() > 200
    }


def writes(name: str) -> bool:
    return name.endswith((".out.weight", ".down.weight"))


def test_normal_has_one_spread(wanted: dict[str, Any]) -> None:
    for name, (spread, _) in spreads(wanted, init="normal", init_std=0.03).items():
        assert spread == pytest.approx(0.03, rel=0.1), name


def test_scaled_divides_what_writes_to_the_stream(wanted: dict[str, Any]) -> None:
    found = spreads(wanted, init="scaled", init_std=0.03)
    assert any(writes(name) for name in found)
    for name, (spread, _) in found.items():
        assert spread == pytest.approx(0.03 / math.sqrt(6) if writes(name) else 0.03, rel=0.1), name


def test_xavier_balances_each_projection(wanted: dict[str, Any]) -> None:
    found = spreads(wanted, init="xavier", init_std=0.03)
    in_blocks = [name for name in found if name.startswith(("layers.", "encoder.", "decoder.")) and "bias" not in name]
    assert len(in_blocks) > 8
    for name, (spread, (rows, columns)) in found.items():
        if name not in in_blocks:
            assert spread == pytest.approx(0.03, rel=0.1), name
            continue
        if ".qkv." in name:
            rows = 64  # the queries'
        elif ".kv." in name or ".gated." in name:
            rows //= 2
        assert spread == pytest.approx(math.sqrt(2 / (rows + columns)), rel=0.1), name


def test_without_a_scheme_the_spread_is_the_familys_own(wanted: dict[str, Any]) -> None:
    own = {
        "gpt-gpt2": "scaled", "gpt-modern": None, "bert-bert": "normal", "bert-modern": "scaled",
        "xlnet-": "normal", "seq2seq-2017": None, "seq2seq-modern": None,
    }[f"{wanted['family']}-{wanted.get('math', '')}"]  # fmt: skip
    if own is None:
        assert spreads(wanted) != spreads(wanted, init="scaled")
    else:
        assert spreads(wanted) == spreads(wanted, init=own)
