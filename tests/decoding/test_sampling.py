"""The filters are those of transformers, and draws follow the distribution."""

import pytest
import torch
from pydantic import ValidationError

from foundling.decoding.sampling import Sampling, draw, filtered

transformers = pytest.importorskip("transformers")


def reference(logits: torch.Tensor, read: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """transformers' own choice and order of processors."""
    config = transformers.GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k or 0,
        top_p=1.0 if sampling.top_p is None else sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
    )
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=5, n_embd=4, n_layer=1, n_head=1))
    processors = model._get_logits_processor(config, input_ids_seq_length=read.shape[1])
    return processors(read, logits.clone())


SETTINGS = [
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(top_k=5),
    Sampling(top_k=1),
    Sampling(top_k=500),
    Sampling(top_p=0.6),
    Sampling(top_p=1.0),
    Sampling(top_p=1e-6),
    Sampling(min_p=0.1),
    Sampling(min_p=1.0),
    Sampling(repetition_penalty=1.3),
    Sampling(repetition_penalty=0.8),
    Sampling(temperature=1.5, top_k=20, top_p=0.8, min_p=0.05, repetition_penalty=1.2),
    Sampling(temperature=0.3, top_k=7, top_p=0.9, repetition_penalty=2.0),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_filters_are_those_of_transformers(sampling: Sampling) -> None:
    generator = torch.Generator().manual_seed(3)
    for spread in (0.5, 3.0, 20.0):
        logits = spread * torch.randn(4, 50, generator=generator)
        logits[0, 7] = logits[0, 9]  # a tie
        read = torch.randint(0, 50, (4, 11), generator=generator)
        torch.testing.assert_close(filtered(logits, read, sampling), reference(logits, read, sampling), rtol=0, atol=0)


def test_draws_follow_the_filtered_distribution() -> None:
    sampling = Sampling(temperature=0.8, top_k=4)
    logits = torch.tensor([[1.0, 2.0, 0.0, -1.0, 3.0, 2.5]])
    generator = torch.Generator().manual_seed(0)
    out = filtered(logits, torch.zeros(1, 1, dtype=torch.int64), sampling)
    drawn = draw(out.expand(40_000, -1), sampling, generator)
    shares = torch.bincount(drawn, minlength=6) / 40_000
    torch.testing.assert_close(shares, out[0].softmax(-1), atol=0.01, rtol=0)
    assert shares[2] == shares[3] == 0


def test_temperature_0_takes_the_most_likely_after_the_penalty() -> None:
    logits = torch.tensor([[1.0, 2.0, 1.9]])
    sampling = Sampling(temperature=0, repetition_penalty=1.5, top_k=1)
    out = filtered(logits, torch.tensor([[1]]), sampling)
    assert draw(out, sampling, torch.Generator()).tolist() == [2]


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        Sampling.model_validate(values)
