"""Which matrices of each family lead from hidden states to hidden states, and which of their rows are heads."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foundling.core.registry import part_names
from foundling.optim.muon import Config as Muon
from foundling.optim.optimizer import Optimizer
from tests.tiny import tiny_batch, tiny_model

SHAPE: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "mlp_width": 20}
HEAD = 8
"""Rows of a head."""

Rows = dict[str, int | None]

ATTENTION: Rows = {"attention.qkv": HEAD, "attention.out": None}
CROSS: Rows = {"cross.q": HEAD, "cross.kv": HEAD, "cross.out": None}
TWO_STREAM: Rows = {"attention.q": HEAD, "attention.kv": HEAD, "attention.out": None}
DISTANCE: Rows = {"attention.distance": HEAD}
PLAIN: Rows = {"mlp.up": None, "mlp.down": None}
GATED: Rows = {"mlp.gate": None, **PLAIN}
GATED_AS_ONE: Rows = {"mlp.gated": None, "mlp.down": None}

FAMILIES: dict[tuple[str, str], dict[str, Rows]] = {
    ("gpt", "math: gpt2"): {"layers": ATTENTION | PLAIN},
    ("gpt", "math: modern"): {"layers": ATTENTION | GATED},
    ("bert", "math: bert"): {"layers": ATTENTION | PLAIN},
    ("bert", "math: modern"): {"layers": ATTENTION | GATED_AS_ONE},
    ("xlnet", "positions: relative"): {"layers": TWO_STREAM | DISTANCE | PLAIN},
    ("xlnet", "positions: rotary"): {"layers": TWO_STREAM | PLAIN},
    ("seq2seq", "math: 2017"): {"encoder": ATTENTION | PLAIN, "decoder": ATTENTION | CROSS | PLAIN},
    ("seq2seq", "math: modern"): {"encoder": ATTENTION | GATED, "decoder": ATTENTION | CROSS | GATED},
}
"""Of the blocks of each family and mathematics the matrices, with the rows of one head; of all else there are none."""


@pytest.fixture(params=FAMILIES, ids=" ".join)
def family(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


def net_of(family: tuple[str, str]) -> Any:
    key, value = family[1].split(": ")
    return tiny_model(family[0], **(SHAPE | {"init_std": 0.5, key: value}))


def matrices_of(net: Any) -> Rows:
    """What muon makes orthogonal."""
    optimizer = Optimizer(net.named_parameters(), Muon(), 1e-2, False, matrices=net.matrices)
    return {slot.name: slot.head_rows for slot in optimizer.slots if slot.hidden}


def test_they_are_those_of_the_blocks(family: tuple[str, str]) -> None:
    wanted = {
        f"{blocks}.{number}.{name}.weight": rows
        for blocks, matrices in FAMILIES[family].items()
        for number in range(2)
        for name, rows in matrices.items()
    }
    assert matrices_of(net_of(family)) == wanted


def test_word_vectors_have_none() -> None:
    assert {name for name, _ in FAMILIES} | {"word2vec"} == set(part_names("models"))
    assert not tiny_model("word2vec").matrices


def test_a_head_of_rows_is_one_head_of_the_attention(family: tuple[str, str]) -> None:
    """With other values in these rows, what one head gives to the output projection is another, and nothing else."""
    net = net_of(family)
    _, batch = tiny_batch(family[0])
    heads_of_rows = {name: rows for name, rows in matrices_of(net).items() if rows and ".0." in name}
    assert heads_of_rows
    for name, rows in heads_of_rows.items():
        weight = net.get_parameter(name)
        out = net.get_submodule(name.removesuffix(".weight").rpartition(".")[0]).out
        before = given_to(out, net, batch)
        changed = []
        for head in weight.data.split(rows):
            kept = head.clone()
            head.mul_(-1)
            apart = (given_to(out, net, batch) - before).abs().unflatten(-1, (SHAPE["heads"], HEAD)).amax((0, 2))
            head.copy_(kept)
            changed += (apart > 1e-4).nonzero()[:, 0].tolist()
            assert (apart > 1e-4).sum() == 1, (name, apart)
        assert len(set(changed)) == SHAPE["heads"], (name, changed)


def given_to(out: nn.Module, net: Any, batch: Any) -> Tensor:
    """What a layer gets [N, D] when the model reads a batch."""
    found: list[Tensor] = []
    handle = out.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with torch.no_grad():
        net(batch)
    handle.remove()
    return found[0]
