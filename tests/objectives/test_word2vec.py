"""Skip-gram and CBOW with negative sampling: who is predicted from whom, against what noise, and that words learn."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from foundling.core.errors import UserError
from foundling.data.batch import Batch
from foundling.data.nearby import pairs_within
from foundling.objectives import word2vec
from foundling.objectives.base import Scale
from foundling.objectives.word2vec import Config, Word2Vec
from foundling.optim.losses.negative_sampling import negative_sampling
from tests.tiny import END, FIRST_ORDINARY, ArrayStream, tiny_model, tiny_tokenizer

VOCAB = 50


def objective_of(**settings: Any) -> Word2Vec:
    return Config(**settings).build(tiny_tokenizer(VOCAB))


def batch_of(tokens: list[int] | np.ndarray, *, rows: int = 1, row_length: int | None = None, **settings: Any) -> Batch:
    """The first samples of a stream."""
    stream = ArrayStream(np.array(tokens))
    objective = objective_of(**settings)
    samples = objective.samples([stream], None, row_length=row_length or len(tokens) // rows, seed=3)
    return objective.collate([samples[i] for i in range(rows)])


def pairs_of(batch: Batch) -> list[tuple[int, int]]:
    """(center token, context token) of a skip-gram batch."""
    assert batch.target_index_M is not None
    return list(zip(batch.tokens_N[batch.target_index_M].tolist(), batch.targets_M.tolist(), strict=True))


def test_with_a_window_of_one_each_word_predicts_its_neighbours() -> None:
    words = list(range(10, 16))
    pairs = pairs_of(batch_of(words, window=1, subsample=0))
    assert sorted(pairs) == sorted([(a, b) for a in words for b in words if abs(a - b) == 1])


def test_windows_end_with_documents_and_special_tokens_take_no_part() -> None:
    unknown = 1
    tokens = [10, 11, END, 12, unknown, 13, END, 14]
    pairs = set(pairs_of(batch_of(tokens, window=5, subsample=0)))
    assert pairs == {(10, 11), (11, 10), (12, 13), (13, 12)}, "an unknown word is left out before windows are laid"


def test_rows_do_not_look_into_each_other() -> None:
    tokens = [*range(10, 20), *range(20, 30)]
    for center, context in pairs_of(batch_of(tokens, rows=2, window=8, subsample=0)):
        assert (center < 20) == (context < 20)


def test_bags_are_the_pairs_of_skip_gram_gathered() -> None:
    tokens = np.random.default_rng(0).integers(FIRST_ORDINARY, VOCAB, 60)
    tokens[20] = END
    single = batch_of(tokens, rows=3, subsample=0.01)
    bags = batch_of(tokens, rows=3, subsample=0.01, mode="cbow")
    assert single.target_index_M is not None
    assert bags.target_index_M is not None
    assert bags.context_starts_M is not None
    assert bags.context_index_C is not None
    ends = [*bags.context_starts_M.tolist()[1:], len(bags.context_index_C)]
    gathered = [
        (int(bags.targets_M[m]), int(bags.tokens_N[c]))
        for m, (start, end) in enumerate(zip(bags.context_starts_M.tolist(), ends, strict=True))
        for c in bags.context_index_C[start:end]
    ]
    assert gathered == pairs_of(single)
    assert torch.equal(bags.targets_M, bags.tokens_N[bags.target_index_M])


def test_the_reach_is_uniform() -> None:
    num = 40_000
    near = pairs_within(np.zeros(num, dtype=int), np.random.default_rng(0).integers(1, 6, num), 5)
    distances = np.bincount(np.abs(near.centers_M - near.contexts_C))[1:] / num
    np.testing.assert_allclose(distances, [2, 1.6, 1.2, 0.8, 0.4], atol=0.02)


def test_frequent_words_are_left_out_as_the_paper_says() -> None:
    rng = np.random.default_rng(0)
    tokens = np.where(rng.random(60_000) < 0.5, 10, rng.integers(11, VOCAB, 60_000))
    batch = batch_of(tokens, rows=60, window=1, subsample=0.02, mode="cbow")
    share = {token: (tokens == token).mean() for token in (10, 20)}
    kept = {token: (batch.targets_M == token).sum().item() / (tokens == token).sum() for token in share}
    assert kept[10] == pytest.approx(math.sqrt(0.02 / share[10]), rel=0.05)
    assert kept[20] == pytest.approx(1.0, abs=0.02)


def test_a_long_text_is_counted_all_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word2vec, "_MOST_COUNTED_TOKENS", 640)
    tokens = np.repeat(np.arange(FIRST_ORDINARY, VOCAB), 100)
    batch = batch_of(tokens, rows=20, subsample=0)
    assert set(batch.negatives_MK.flatten().tolist()) == set(range(FIRST_ORDINARY, VOCAB))


def test_noise_follows_counts_to_the_power() -> None:
    tokens = np.repeat([10, 11, 12], [8000, 1000, 1000])
    batch = batch_of(np.random.default_rng(0).permutation(tokens), rows=10, subsample=0)
    assert batch.negatives_MK is not None
    wanted = np.array([8000, 1000, 1000]) ** 0.75
    found = np.bincount(batch.negatives_MK.flatten().numpy(), minlength=VOCAB)
    np.testing.assert_allclose(found[10:13] / found.sum(), wanted / wanted.sum(), atol=0.01)
    assert found[:10].sum() == found[13:].sum() == 0


def test_a_row_has_the_same_noise_in_any_batch_and_another_each_time_it_comes() -> None:
    objective = objective_of(subsample=0)
    stream = ArrayStream(np.random.default_rng(0).integers(FIRST_ORDINARY, VOCAB, 40))
    samples = objective.samples([stream], None, row_length=20, seed=0)
    alone, both, later = (objective.collate([samples[i] for i in numbers]) for numbers in ([1], [0, 1], [2, 3]))
    for batch in (alone, both, later):
        assert batch.negatives_MK is not None
    assert torch.equal(alone.negatives_MK, both.negatives_MK[-alone.num_targets :])  # type: ignore[arg-type,index]
    assert both.negatives_MK.tolist() != later.negatives_MK.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["skipgram", "cbow"])
def test_loss_and_gradients_are_those_of_the_formula(mode: str) -> None:
    objective = objective_of(mode=mode, subsample=0)
    tokens = np.random.default_rng(0).integers(FIRST_ORDINARY, 12, 30)  # few words: noise often hits the target
    samples = objective.samples([ArrayStream(tokens)], None, row_length=15, seed=0)
    batch = objective.collate([samples[0], samples[1]])
    net = tiny_model("word2vec", VOCAB, init_std=0.5).double()
    losses = objective.scores(net, batch)["loss"]
    words = net.embedding.weight.detach().numpy().copy()
    contexts = net.context.weight.detach().numpy().copy()
    d_words, d_contexts = np.zeros_like(words), np.zeros_like(contexts)
    assert batch.negatives_MK is not None
    for m in range(batch.num_targets):
        if mode == "cbow":
            assert batch.context_index_C is not None
            assert batch.context_starts_M is not None
            starts = [*batch.context_starts_M.tolist(), len(batch.context_index_C)]
            read = batch.tokens_N[batch.context_index_C[starts[m] : starts[m + 1]]].tolist()
        else:
            assert batch.target_index_M is not None
            read = [int(batch.tokens_N[batch.target_index_M[m]])]
        hidden = np.mean([words[i] for i in read], axis=0)
        target = int(batch.targets_M[m])
        loss, d_hidden = 0.0, np.zeros_like(hidden)
        for word, sign in [(target, 1), *((n, -1) for n in batch.negatives_MK[m].tolist() if n != target)]:
            chance = 1 / (1 + math.exp(-sign * float(hidden @ contexts[word])))
            loss -= math.log(chance)
            d_hidden -= sign * (1 - chance) * contexts[word]
            d_contexts[word] -= sign * (1 - chance) * hidden
        for i in read:
            d_words[i] += d_hidden / len(read)
        assert losses[m].item() == pytest.approx(loss, rel=1e-5)
    (part,) = objective.loss(net, batch, Scale(1.0, 1.0), False).parts.values()
    part.backward()
    np.testing.assert_allclose(net.embedding.weight.grad, d_words, atol=1e-5)
    np.testing.assert_allclose(net.context.weight.grad, d_contexts, atol=1e-5)


def test_no_targets_cost_nothing() -> None:
    weight = torch.randn(5, 3)
    none = torch.zeros(0, dtype=torch.int64)
    assert negative_sampling(torch.zeros(0, 3), weight, none, none.reshape(0, 2)).shape == (0,)


@pytest.mark.parametrize("mode", ["skipgram", "cbow"])
def test_words_of_one_topic_become_neighbours(mode: str) -> None:
    topics = np.arange(FIRST_ORDINARY, FIRST_ORDINARY + 40).reshape(5, 8)
    rng = np.random.default_rng(0)
    documents = [np.append(rng.choice(topics[i % 5], 19), END) for i in range(200)]
    objective = objective_of(mode=mode, subsample=0)
    samples = objective.samples([ArrayStream(np.concatenate(documents), 200)], None, row_length=100, seed=0)
    net = tiny_model("word2vec", VOCAB)
    before = objective.scores(net, objective.collate([samples[0]]))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for step in range(60):
        batch = objective.collate([samples[8 * step + i] for i in range(8)])
        (part,) = objective.loss(net, batch, Scale(1 / batch.num_targets, 1.0), False).parts.values()
        optimizer.zero_grad()
        part.backward()
        optimizer.step()
    after = objective.scores(net, objective.collate([samples[0]]))
    assert after["loss"].mean() < 0.8 * before["loss"].mean()
    assert after["above_noise"].mean() > 0.7
    vectors = torch.nn.functional.normalize(net.embedding.weight.detach()[topics.reshape(-1)], dim=1)
    similar = vectors @ vectors.T - 2 * torch.eye(40)
    nearest = similar.topk(7, dim=1).indices // 8
    assert (nearest == torch.arange(40)[:, None] // 8).float().mean() > 0.95


def test_text_of_unknown_words_is_told() -> None:
    with pytest.raises(UserError, match="words that the tokenizer knows"):
        batch_of([1] * 20, rows=2)
