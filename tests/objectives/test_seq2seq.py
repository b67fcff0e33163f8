"""The encoder-decoder objective on pairs and on plain text."""

from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from foundling.core.errors import UserError
from foundling.objectives.base import Scale
from foundling.objectives.seq2seq import Config, Seq2Seq
from foundling.tokenizers.base import Role, SpecialTokens, Tokenizer
from tests.tiny import ArrayStream, tiny_model, tiny_tokenizer

SENTINELS = [f"<extra_id_{i}>" for i in range(3)]
END, FIRST = 0, 5


def tokenizer_of(roles: dict[Role, str], extra: list[str]) -> Tokenizer:
    names = [*dict.fromkeys([*roles.values(), *extra]), "[UNK]", *(f"w{i}" for i in range(50))][:50]
    model = tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    raw = tokenizers.Tokenizer(model)
    raw.add_special_tokens([*roles.values(), *extra])
    return Tokenizer(raw, SpecialTokens(roles), kind="wordlevel")


def objective(**keys: Any) -> Seq2Seq:
    return Config.model_validate(keys).build(tokenizer_of({"eos": "[EOS]"}, SENTINELS))


def text(num_tokens: int) -> ArrayStream:
    return ArrayStream(np.random.default_rng(0).integers(FIRST, 50, num_tokens))


def test_spans_of_plain_text_fill_rows_of_one_shape() -> None:
    made = objective(pretext="spans")
    samples = made.samples([text(900)], None, row_length=30, seed=3)
    batch = made.collate([samples[i] for i in range(8)])
    assert batch.num_tokens == 8 * 30
    assert len(batch.tokens_N) % 8 == len(batch.source_tokens_S) % 8 == 0
    assert set(batch.bounds_R1.diff().tolist()) == {batch.max_row_length}
    assert set(batch.source_bounds_R1.diff().tolist()) == {batch.max_source_length}
    ends = batch.bounds_R1[1:].long() - 1
    assert (batch.targets_M[ends] == END).all()
    assert (batch.targets_M[batch.bounds_R1[:-1].long()] == 1).all(), "a target begins with the first sentinel"
    assert (batch.tokens_N[batch.bounds_R1[:-1].long()] == END).all(), "a decoder begins with the start token"
    torch.testing.assert_close(batch.tokens_N[1 : batch.max_row_length], batch.targets_M[: batch.max_row_length - 1])


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_text_cut_in_two_is_the_text(share: float) -> None:
    made, stream = objective(source_share=share), text(900)
    samples = made.samples([stream], None, row_length=12, seed=3)
    for i in range(30):
        row = samples[i]
        assert len(row.source_tokens) + len(row.tokens) == 12
        assert row.source_tokens[-1] == END
        whole = np.concatenate([row.source_tokens[:-1], row.tokens])
        assert whole.tolist() == stream.read(row.start, 11).tolist()
        assert len(row.tokens) == {0.01: 10, 0.5: 5, 0.99: 1}[share]


def test_pairs_of_any_length_are_packed() -> None:
    made = objective()
    rows = [made.pair(4, [7, 8, 9], [10], source=1), made.pair(9, [], [11, 12])]
    batch = made.collate(rows)
    assert batch.source_tokens_S.tolist() == [7, 8, 9, END, END]
    assert batch.source_positions_S.tolist() == [0, 1, 2, 3, 0]
    assert batch.source_bounds_R1.tolist() == [0, 4, 5]
    assert batch.max_source_length == 4
    assert batch.tokens_N.tolist() == [END, 10, END, 11, 12]
    assert batch.targets_M.tolist() == [10, END, 11, 12, END]
    assert batch.bounds_R1.tolist() == [0, 2, 5]
    assert batch.positions_N.tolist() == [0, 1, 0, 1, 2]
    assert batch.max_row_length == 3
    assert batch.samples_R == (4, 9)
    assert batch.sources_R == (1, 0)
    assert batch.num_tokens == 10


def test_pairs_together_are_pairs_alone() -> None:
    made, model = objective(), tiny_model("seq2seq", 50)
    rows = [made.pair(0, [7, 8, 9], [10]), made.pair(1, [6], [11, 12]), made.pair(2, [6, 5], [13])]
    scale = Scale(1.0, 1.0)
    together = made.loss(model, made.collate(rows), scale, False).parts["seq2seq"]
    alone = [made.loss(model, made.collate([row]), scale, False).parts["seq2seq"] for row in rows]
    torch.testing.assert_close(together, torch.stack(alone).sum())
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in (together, sum(alone))]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)


def test_the_decoder_starts_with_bos_where_there_is_one() -> None:
    made = Config().build(tokenizer_of({"bos": "[BOS]", "eos": "[EOS]"}, []))
    assert made.start_id == 0
    assert made.end_id == 1
    assert Config().build(tokenizer_of({"sep": "[SEP]"}, [])).start_id == 0


def test_what_is_missing_is_told_with_the_way_out() -> None:
    with pytest.raises(UserError, match="must have an eos or sep token"):
        Config().build(tokenizer_of({"bos": "[BOS]"}, []))
    spans = Config(pretext="spans")
    with pytest.raises(UserError, match=r"needs 2 sentinels.*got none of <extra_id_0> ... <extra_id_1>.*extra_tokens"):
        spans.build(tiny_tokenizer()).samples([text(900)], None, row_length=40, seed=0)
    with pytest.raises(UserError, match=r"got 3 of <extra_id_0>.*pretext=prefix"):
        objective(pretext="spans").samples([text(900)], None, row_length=128, seed=0)
    with pytest.raises(UserError, match="must hold a source and a target; got 5 tokens"):
        objective(pretext="spans").samples([text(900)], None, row_length=5, seed=0)
    with pytest.raises(UserError, match="must hold a source and a target; got 2 tokens"):
        objective().samples([text(900)], None, row_length=2, seed=0)
    named = Config(pretext="spans", sentinel="[S{}]")
    assert named.build(tokenizer_of({"eos": "[EOS]"}, ["[S0]", "[S1]"])).samples(
        [text(99)], None, row_length=30, seed=0
    )
