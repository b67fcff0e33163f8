"""Generation with the cache is generation without it, and transformers' greedy decoding."""

import logging
from pathlib import Path

import pytest
import torch

from foundling.core.errors import UserError
from foundling.data.batch import rows_batch
from foundling.decoding.generate import generate
from foundling.models.gpt import Cache, Gpt, last_logits
from foundling.models.hub import save_model
from tests.serve.conftest import small_model

KINDS = {
    "gpt2": {"math": "gpt2"},
    "modern": {},
    "llama": {"qk_norm": False, "tied": False},
    "all heads": {"kv_heads": None},
}
PROMPT = [5, 17, 200, 3, 3, 42]


def logits_of(model: Gpt, ids: list[int]) -> torch.Tensor:
    row = torch.tensor([ids])
    with torch.no_grad():
        return model(rows_batch(row, row)).logits()


def greedy(model: Gpt, prompt: list[int], num_tokens: int) -> list[int]:
    """Without a cache: the whole text anew for each token."""
    ids = list(prompt)
    for _ in range(num_tokens):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [[12], [1] * 12, [5, 1, 6], [1, 11]], ids=str)
def test_logits_with_the_cache_are_those_without(kind: str, pieces: list[int]) -> None:
    model = small_model(**KINDS[kind])
    generator = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(0, 300, (3, 12), generator=generator)
    cache, parts = Cache(3, 12), []
    with torch.no_grad():
        whole = model(rows_batch(tokens_BT, tokens_BT)).logits().unflatten(0, (3, 12))
        for piece in tokens_BT.split(pieces, dim=1):
            hidden = model.forward_cached(piece, cache)
            parts.append(hidden.logits().unflatten(0, (3, -1)))
            torch.testing.assert_close(last_logits(hidden, 3), parts[-1][:, -1])
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_with_the_cache_is_greedy_without(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(**KINDS[kind])
    expected = greedy(model, PROMPT, 20)
    assert len(set(expected)) > 3, "the model must say something"
    assert [step for (step,) in generate(model, PROMPT, max_tokens=20, temperature=0)] == expected
    monkeypatch.setattr("foundling.decoding.begin._PIECE_TOKENS", 4)
    assert [step for (step,) in generate(model, PROMPT, max_tokens=20, temperature=0)] == expected


@pytest.mark.parametrize("kind", ["gpt2", "modern", "llama"])
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_greedy_is_that_of_transformers(kind: str, penalty: float, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = small_model(**KINDS[kind])
    save_model(model, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    prompt = torch.tensor([PROMPT])
    answer = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=20,
        do_sample=False,
        repetition_penalty=penalty,
        pad_token_id=0,
    )
    ours = generate(model, PROMPT, max_tokens=20, temperature=0, repetition_penalty=penalty)
    assert [step for (step,) in ours] == answer[0, len(PROMPT) :].tolist()


def test_the_first_draw_follows_the_model() -> None:
    model = small_model(vocab_size=12)
    prompt = [1, 2, 3]
    (step,) = generate(model, prompt, max_tokens=1, seed=0, num_samples=20_000)
    shares = torch.bincount(torch.tensor(step), minlength=12) / 20_000
    torch.testing.assert_close(shares, logits_of(model, prompt)[-1].softmax(-1), atol=0.015, rtol=0)


def test_samples_of_one_prompt_are_continuations_of_it() -> None:
    """At temperature 0 all samples are the single one; else each next token follows its own sample."""
    model = small_model()
    single = [step for (step,) in generate(model, PROMPT, max_tokens=8, temperature=0)]
    many = list(generate(model, PROMPT, max_tokens=8, temperature=0, num_samples=3))
    assert many == [(token,) * 3 for token in single]
    drawn = list(zip(*generate(model, PROMPT, max_tokens=6, seed=0, num_samples=4, top_k=2), strict=True))
    assert len(set(drawn)) > 1
    for sample in drawn:
        logits = logits_of(model, PROMPT + list(sample))[len(PROMPT) - 1 : -1]
        for row, token in zip(logits, sample, strict=True):
            assert token in row.topk(2).indices


def test_a_seed_gives_one_text_and_the_global_generator_stays() -> None:
    model = small_model()
    before = torch.get_rng_state()
    first = list(generate(model, PROMPT, max_tokens=20, seed=7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert list(generate(model, PROMPT, max_tokens=20, seed=7)) == first
    assert list(generate(model, PROMPT, max_tokens=20, seed=8)) != first


def test_tokens_come_one_by_one() -> None:
    model = small_model()
    calls: list[int] = []
    forward = model.forward_cached
    model.forward_cached = lambda tokens, cache, **_: calls.append(tokens.shape[1]) or forward(tokens, cache)  # type: ignore[method-assign,assignment]
    steps = generate(model, PROMPT, max_tokens=10, seed=0)
    next(steps)
    assert calls == [len(PROMPT)]
    next(steps)
    assert calls == [len(PROMPT), 1]


def test_a_stop_id_ends_a_sample_and_is_not_given() -> None:
    model = small_model()
    expected = greedy(model, PROMPT, 20)
    stop = expected[4]
    given = [step for (step,) in generate(model, PROMPT, max_tokens=20, temperature=0, stop_ids=[stop])]
    assert given == expected[: expected.index(stop)]
    free = list(zip(*generate(model, PROMPT, max_tokens=12, seed=0, num_samples=4), strict=True))
    stop = free[1][3]
    assert stop is not None
    stopped = list(generate(model, PROMPT, max_tokens=12, seed=0, num_samples=4, stop_ids=[stop]))
    for free_sample, sample in zip(free, zip(*stopped, strict=True), strict=True):
        end = free_sample.index(stop) if stop in free_sample else len(free_sample)
        assert list(sample) == [*free_sample[:end], *[None] * (len(sample) - end)][: len(sample)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_position_is_used_and_none_beyond(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model = small_model(**KINDS[kind])
    with caplog.at_level(logging.INFO, "foundling"):
        steps = [step for (step,) in generate(model, PROMPT, max_tokens=100, temperature=0)]
    assert len(steps) == 40 - len(PROMPT) + 1
    assert "max_tokens is lowered from 100 to 35" in caplog.text
    assert steps == greedy(model, PROMPT, 35)
    full = list(range(40))
    assert len(list(generate(model, full, max_tokens=5, temperature=0))) == 1


@pytest.mark.parametrize(
    ("prompt", "settings", "told"),
    [
        ([], {}, "at least one token"),
        (list(range(41)), {}, "at most 40 tokens"),
        ([1, 300], {}, r"0 \.\.\. 299; got 300"),
        ([1, -1], {}, "got -1"),
        ([1], {"max_tokens": 0}, "max_tokens"),
        ([1], {"num_samples": 0}, "num_samples"),
        ([1], {"temperature": -1}, "temperature"),
        ([1], {"top_p": 2, "top_k": 0}, "top_k"),
    ],
    ids=str,
)
def test_faults_are_told_before_anything_is_computed(prompt: list[int], settings: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        generate(small_model(), prompt, **{"max_tokens": 5, **settings})


def test_nan_is_an_error_and_no_token() -> None:
    model = small_model()
    with torch.no_grad():
        model.layers[1].mlp.up.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="logits must be finite"):
        next(generate(model, PROMPT, max_tokens=5, temperature=0))
