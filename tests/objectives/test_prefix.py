"""Laws of the prefix language model: the causal objective and the decoder with a prefix."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from foundling.data.batch import Batch
from foundling.models.gpt import Cache, last_logits
from foundling.objectives.causal import Causal, Config
from tests.tiny import ArrayStream, tiny_model, tiny_tokenizer

LENGTH = 12
MATHS: dict[str, dict[str, Any]] = {
    "modern": {},
    "gpt2": {"math": "gpt2", "kv_heads": None},
}


@pytest.fixture(params=MATHS)
def model(request: pytest.FixtureRequest) -> Any:
    made = tiny_model("gpt", 50, prefix=True, **MATHS[request.param])
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return made


def objective(prefix: Any) -> Causal:
    return Config.model_validate({"prefix": prefix}).build(tiny_tokenizer())


def batch_of(prefix: Any, number: int = 8) -> Batch:
    tokens = np.random.default_rng(0).integers(6, 50, 600)
    made = objective(prefix)
    samples = made.samples([ArrayStream(tokens)], None, row_length=LENGTH, seed=1)
    return made.collate([samples[i] for i in range(number)])


def changed_at(batch: Batch, place: int) -> Batch:
    tokens_N = batch.tokens_N.clone()
    tokens_N[place] = (tokens_N[place] + 7) % 50
    return replace(batch, tokens_N=tokens_N)


def test_no_token_behind_the_prefix_changes_what_comes_before_it_and_prefix_tokens_see_each_other(model: Any) -> None:
    batch = batch_of([0.0, 0.9])
    before = model.encode(batch)
    for row, prefix in enumerate(batch.prefix_R.tolist()):
        start = row * LENGTH
        for place in range(LENGTH):
            after = model.encode(changed_at(batch, start + place))
            differs = (after != before).any(1).unflatten(0, (-1, LENGTH))
            assert not differs[torch.arange(8) != row].any()
            first = 0 if place < prefix else place
            assert not differs[row, :first].any(), (row, place)
            assert differs[row, first:].all(), (row, place)


def test_no_target_is_seen_by_where_it_is_read(model: Any) -> None:
    """Whatever the prefix: changing a target's token leaves the answer that predicts it as it was."""
    batch = batch_of([0.0, 0.9])
    before = model(batch).hidden_MD
    for target, place in enumerate(batch.target_index_M.tolist()):
        if (place + 1) % LENGTH:  # the last target of a row is no input
            after = model(changed_at(batch, place + 1)).hidden_MD
            assert torch.equal(after[target], before[target])


def test_prefix_zero_is_causal(model: Any) -> None:
    none, zero = batch_of(None), batch_of(0)
    assert none.prefix_R is None
    assert zero.prefix_R.tolist() == [0] * 8
    assert torch.equal(zero.targets_M, none.targets_M)
    torch.testing.assert_close(model(zero).hidden_MD, model(none).hidden_MD, atol=1e-6, rtol=1e-6)


def test_shares_are_those_asked_for_and_the_loss_begins_behind_them() -> None:
    tokens = np.arange(60_001) % 44 + 6
    made = objective([0.25, 0.75])
    samples = made.samples([ArrayStream(tokens)], None, row_length=20, seed=1)
    prefixes = np.array([samples[i].prefix for i in range(3000)])
    assert prefixes.min() == 5
    assert prefixes.max() == 14
    assert prefixes.mean() == pytest.approx(9.5, abs=0.2)
    again = made.samples([ArrayStream(tokens)], None, row_length=20, seed=1)
    other = made.samples([ArrayStream(tokens)], None, row_length=20, seed=2)
    assert [again[i].prefix for i in range(50)] == prefixes[:50].tolist()
    assert [other[i].prefix for i in range(50)] != prefixes[:50].tolist()
    rows = [samples[i] for i in range(10)]
    batch = made.collate(rows)
    wanted = np.concatenate([row.tokens[max(row.prefix, 1) :] for row in rows])
    assert batch.targets_M.tolist() == wanted.tolist()
    nexts = torch.from_numpy(np.stack([row.tokens[1:] for row in rows])).flatten()
    assert torch.equal(nexts[batch.target_index_M], batch.targets_M)
    assert {row.prefix for row in [objective(0.5).samples([ArrayStream(tokens)], None, row_length=20, seed=1)[3]]} == {
        10
    }


def test_a_prompt_read_with_a_cache_is_a_prefix(model: Any) -> None:
    row = torch.arange(6, 6 + 10)
    whole = Batch(
        tokens_N=row, positions_N=torch.arange(10), bounds_R1=torch.tensor([0, 10], dtype=torch.int32),
        max_row_length=10, targets_M=row, prefix_R=torch.tensor([6], dtype=torch.int32),
    )  # fmt: skip
    logits = model(whole).logits()
    cache = Cache(1, 10)
    found = [last_logits(model.forward_cached(row[None, :6], cache, prefix=True), 1)]
    found += [last_logits(model.forward_cached(row[None, i : i + 1], cache), 1) for i in range(6, 10)]
    torch.testing.assert_close(torch.cat(found), logits[5:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", [1.0, -0.1, [0.5, 0.2], [0.2], "half"])
def test_impossible_shares_are_told(prefix: Any) -> None:
    with pytest.raises(ValidationError, match="prefix"):
        Config.model_validate({"prefix": prefix})


def test_bits_per_byte_mean_nothing_behind_a_prefix() -> None:
    assert objective(None).predicts_text
    assert not objective(0.5).predicts_text
