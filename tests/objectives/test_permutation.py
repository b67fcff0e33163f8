"""The permutation objective's batches: who sees whom, documents, memory, whole texts."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from foundling.core.errors import UserError
from foundling.data.batch import Batch
from foundling.objectives.permutation import Config, Permutation
from tests.tiny import END, FIRST_ORDINARY, ArrayStream, tiny_model, tiny_tokenizer

VOCAB = 50


def objective(**keys: object) -> Permutation:
    return Config.model_validate({"kind": "permutation", **keys}).build(tiny_tokenizer(VOCAB))


def batch_of(number: int = 8, **keys: object) -> Batch:
    tokens = np.random.default_rng(0).integers(FIRST_ORDINARY, VOCAB, 600)
    tokens[9::10] = END
    made = objective(**keys)
    samples = made.samples([ArrayStream(tokens, documents=60)], None, row_length=24, seed=0)
    return made.collate([samples[i] for i in range(number)])


def test_rows_keep_their_text_and_targets_are_those_with_a_rank() -> None:
    batch = batch_of()
    assert batch.ranks_N is not None
    assert batch.target_index_M is not None
    assert batch.num_targets == 8 * (24 // 6)
    assert torch.equal(batch.ranks_N.nonzero()[:, 0], batch.target_index_M)
    assert torch.equal(batch.tokens_N[batch.target_index_M], batch.targets_M)
    assert not (batch.targets_M == END).any()


def test_segments_are_documents_and_memory_counts_on() -> None:
    plain = batch_of()
    assert plain.segments_N is not None
    for row in plain.segments_N.view(8, 24):
        assert row[0] == 0
        assert set(row.diff().tolist()) == {0, 1}
    ends = plain.tokens_N.view(8, 24) == END
    assert torch.equal(plain.segments_N.view(8, 24).diff() == 1, ends[:, :-1])
    both = batch_of(memory=15, bidirectional=True)
    assert both.memory is not None
    assert both.memory.segments_N is not None
    assert both.segments_N is not None
    starts = both.memory.positions_N.view(8, 15)[:, 0].tolist()
    assert set(starts) == {-15, 24}
    for start, own, other in zip(starts, both.segments_N.view(8, 24), both.memory.segments_N.view(8, 15), strict=True):
        text = torch.cat([other, own] if start < 0 else [own, other])
        assert set(text.diff().tolist()) == {0, 1}
        assert text[0] == 0


def test_the_probabilities_of_all_tokens_at_a_place_add_up_to_one() -> None:
    made, model = objective(), tiny_model("xlnet", VOCAB, init_std=0.3)
    for place in range(3):
        texts = [np.insert([9, 30], place, token) for token in range(VOCAB)]
        losses = made.scores(model, made.text_batch(texts))["loss"].view(VOCAB, 3)
        torch.testing.assert_close((-losses[:, place]).exp().sum(), torch.tensor(1.0))


def test_each_token_given_all_others() -> None:
    """A token's own score does not know it; every other token's does."""
    made, model = objective(), tiny_model("xlnet", VOCAB, init_std=0.3)
    text = np.arange(8, 14)
    batch = made.text_batch([text, text[:2]])
    assert made.pseudo_likelihood
    assert made.text_rows(6) == (6, 8)
    assert batch.sources_R == (0,) * 6 + (1,) * 2
    assert batch.targets_M.tolist() == [*text, *text[:2]]
    before = model(batch).logits()
    changed = text.copy()
    changed[3] = 40
    differs = (model(made.text_batch([changed, text[:2]])).logits() != before).any(1)
    assert differs.tolist() == [True, True, True, False, True, True, False, False]


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValidationError, match="bidirectional is about memory"):
        objective(bidirectional=True)
    with pytest.raises(UserError, match="one row with its memory"):
        batch_of(memory=600)
