"""Beam search against brute force, greedy decoding and transformers."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from foundling.core.errors import UserError
from foundling.decoding.beam import Beam, Hypothesis, beam_search
from foundling.decoding.generate import generate
from foundling.models.gpt import Gpt
from foundling.models.hub import save_model
from foundling.models.seq2seq import Config, Seq2Seq
from tests.serve.conftest import small_model

START, STOP = 0, 1
ALL = {"beams": 4**4, "num_best": 20, "early_stopping": "never"}
"""As many hypotheses as there are texts: nothing is lost."""


def small_seq2seq(vocab_size: int = 4, std: float = 0.5, **keys: Any) -> Seq2Seq:
    values = {"vocab_size": vocab_size, "layers": 2, "width": 24, "heads": 4, "max_positions": 16, **keys}
    model = Config.model_validate(values).build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, std, generator=generator)
    return model.eval()


def log_probabilities(model: Gpt | Seq2Seq, prompt: list[int], text: list[int]) -> list[float]:
    """Of each token of a text that follows the prompt, without a cache."""
    if isinstance(model, Gpt):
        from tests.decoding.test_generate import logits_of

        logits = logits_of(model, prompt + text[:-1])[len(prompt) - 1 :]
    else:
        from tests.models.test_seq2seq import packed

        target = torch.tensor([START, *text[:-1]])
        with torch.no_grad():
            logits = model(packed([torch.tensor(prompt)], [target])).logits()
    return [float(row[token]) for row, token in zip(logits.log_softmax(-1), text, strict=True)]


def brute_force(model: Gpt | Seq2Seq, prompt: list[int], max_tokens: int, beam: Beam) -> list[Hypothesis]:
    """Every text there is: those that end with the stop token, and those that are cut off."""
    found = []
    vocab = range(model.config.vocab_size)
    for length in range(1, max_tokens + 1):
        for tokens in itertools.product(vocab, repeat=length):
            ended = tokens[-1] == STOP
            if STOP in tokens[:-1] or not (ended or length == max_tokens):
                continue
            total = sum(log_probabilities(model, prompt, list(tokens)))
            given = tokens[:-1] if ended else tokens
            found.append(Hypothesis(given, beam.normalized(total, length), total, ended))
    return sorted(found, key=lambda one: -one.score)


def assert_same(found: list[Hypothesis], wanted: list[Hypothesis]) -> None:
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    assert [one.ended for one in found] == [one.ended for one in wanted]
    for one, two in zip(found, wanted, strict=True):
        assert one.score == pytest.approx(two.score, abs=1e-4)
        assert one.log_probability == pytest.approx(two.log_probability, abs=1e-4)


MODELS: dict[str, Any] = {
    "gpt": lambda: small_model(vocab_size=4, max_positions=16),
    "gpt2": lambda: small_model(vocab_size=4, max_positions=16, math="gpt2"),
    "seq2seq": small_seq2seq,
    "seq2seq-2017": lambda: small_seq2seq(math="2017"),
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"length_penalty": 0.0},
    {"length_penalty": 2.5},
    {"length_penalty": -1.0},
    {"length_penalty": 0.6, "normalization": "gnmt"},
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_beam_as_wide_as_all_texts_is_brute_force(name: str, settings: dict[str, Any]) -> None:
    model, prompts = MODELS[name](), [[2, 3, 0, 2], [3], [2, 2]]
    found = beam_search(model, prompts, max_tokens=4, stop_ids=[STOP], start_id=START, **ALL, **settings)
    for prompt, best in zip(prompts, found, strict=True):
        assert_same(best, brute_force(model, prompt, 4, Beam(**settings))[:20])


@pytest.mark.parametrize("kind", ["gpt", "seq2seq"])
def test_one_beam_is_greedy_and_more_are_never_worse(kind: str) -> None:
    model = small_model() if kind == "gpt" else small_seq2seq(300)
    prompts = [[5, 17, 200, 3], [9], [42, 7], [8, 8]]
    stops = range(2, 300, 3)
    keys: dict[str, Any] = {"max_tokens": 12, "stop_ids": stops, "start_id": START}
    found = beam_search(model, prompts, beams=1, length_penalty=3.0, early_stopping="never", **keys)
    assert any(one.ended for (one,) in found)
    for prompt, (one,) in zip(prompts, found, strict=True):
        steps = generate(model, prompt, temperature=0, **keys)
        assert list(one.tokens) == [step[0] for step in steps]
    none = {"length_penalty": 0.0, "max_tokens": 12, "start_id": START}
    greedy = beam_search(model, prompts, beams=1, **none)
    for prompt, (alone,), (best,) in zip(prompts, greedy, beam_search(model, prompts, beams=8, **none), strict=True):
        assert best.log_probability >= alone.log_probability - 1e-5
        assert best.log_probability == pytest.approx(sum(log_probabilities(model, prompt, list(best.tokens))), abs=1e-3)


def test_prompts_together_are_prompts_alone() -> None:
    for model in (small_seq2seq(30), small_model(vocab_size=30)):
        prompts = [[5, 7, 20, 3], [9], [2, 7], [8, 8, 9], [3, 3, 3, 4]]
        keys: dict[str, Any] = {"max_tokens": 8, "stop_ids": [STOP, 2, 3], "start_id": START, "beams": 3, "num_best": 3}
        together = beam_search(model, prompts, **keys)
        for prompt, best in zip(prompts, together, strict=True):
            (alone,) = beam_search(model, [prompt], **keys)
            assert_same(best, alone)


@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("math", ["gpt2", "modern"])
def test_it_is_that_of_transformers(early: Any, penalty: float, math: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = small_model(vocab_size=40, std=0.3, math=math)
    save_model(model, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager")
    prompts = [[5, 17, 20, 3], [8, 8, 9, 30], [39, 2, 2, 2], [11, 12, 13, 14]]
    stops = list(range(1, 40, 4))
    answer = theirs.generate(
        torch.tensor(prompts), attention_mask=torch.ones(4, 4, dtype=torch.long), do_sample=False, num_beams=4,
        num_return_sequences=3, max_new_tokens=10, length_penalty=penalty, early_stopping=early, eos_token_id=stops,
        pad_token_id=39, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    found = beam_search(
        model, prompts, max_tokens=10, stop_ids=stops, beams=4, num_best=3, length_penalty=penalty, early_stopping=early
    )
    scores = answer.sequences_scores.view(4, 3).tolist()
    texts = answer.sequences[:, 4:].view(4, 3, -1).tolist()
    assert penalty == 2 or any(one.ended for best in found for one in best)
    for best, their_scores, their_texts in zip(found, scores, texts, strict=True):
        for one, score, text in zip(best, their_scores, their_texts, strict=True):
            assert one.score == pytest.approx(score, abs=1e-4)
            ends = [i for i, token in enumerate(text) if token in stops]
            assert list(one.tokens) == text[: ends[0] if ends else None]
            assert one.ended == bool(ends)


def test_a_prompt_of_a_model_with_a_prefix_is_its_prefix() -> None:
    model = small_model(vocab_size=30, prefix=True)
    causal = small_model(vocab_size=30)
    causal.load_state_dict(model.state_dict())
    prompt = [5, 17, 20, 3, 9]
    ((best,),) = beam_search(model, [prompt], max_tokens=4, beams=3)
    ((other,),) = beam_search(causal, [prompt], max_tokens=4, beams=3)
    assert best.log_probability != pytest.approx(other.log_probability, abs=1e-3)


def test_a_stop_ends_a_sentence_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a sentence that is done are computed no more."""
    model = small_seq2seq(30)
    sizes: list[int] = []
    before = Seq2Seq.forward_cached

    def counted(self: Seq2Seq, tokens: torch.Tensor, cache: Any) -> Any:
        sizes.append(len(tokens))
        return before(self, tokens, cache)

    monkeypatch.setattr(Seq2Seq, "forward_cached", counted)
    found = beam_search(
        model, [[5], [6, 7], [9, 9, 9], [4]], max_tokens=12, stop_ids=range(1, 15), start_id=START, early_stopping=True
    )
    assert [best[0].ended for best in found] == [True, True, True, False]
    assert sizes[0] == 4
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert sizes[-1] == 4


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"beams": 0}, "beams must be at least 1"),
        ({"num_best": 5}, r"num_best must lie in 1 ... beams \(4\)"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"beam_width": 3}, "beam_width: unknown key"),
        ({"prompts": [[]]}, "at least one token"),
        ({"prompts": [[30]]}, "ids must lie in 0 ... 29"),
        ({"prompts": [[1] * 17]}, "at most 16 tokens"),
    ],
)
def test_what_cannot_be_is_told(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        beam_search(**{"model": small_seq2seq(30), "prompts": [[3]], "max_tokens": 5, "start_id": START, **keys})
