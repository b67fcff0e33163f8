"""How likely texts are to models of each family: against one text at a time, by the definition."""

from typing import Any

import numpy as np
import pytest
import torch

from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.evaluation.intervals import wilson
from foundling.evaluation.likelihood import log_likelihoods
from tests.tiny import FIRST_ORDINARY, SPECIAL, tiny_model, tiny_tokenizer

VOCAB = 50
FAMILIES = {"gpt": "causal", "bert": "mlm", "xlnet": "permutation"}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def parts(family: str) -> tuple[Any, Any]:
    config = load_part("objectives", FAMILIES[family]).Config()
    return tiny_model(family, VOCAB).eval(), config.build(tiny_tokenizer(VOCAB))


def texts(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(FIRST_ORDINARY, VOCAB, length) for length in lengths]


def test_texts_together_are_each_text_alone(family: str) -> None:
    model, objective = parts(family)
    given = texts(5, 9, 1, 5, 12)
    whole = log_likelihoods(model, objective, given, max_positions=16)
    sizes: list[int] = []
    watched = model.register_forward_pre_hook(lambda _, args: sizes.append(args[0].num_tokens))
    small = log_likelihoods(model, objective, given, max_positions=16, batch_tokens=30)
    watched.remove()
    assert max(sizes) <= 30, "a text of 12 tokens is 12 rows for a model that reads both sides"
    alone = [log_likelihoods(model, objective, [text], max_positions=16)[0] for text in given]
    np.testing.assert_allclose(whole, alone, rtol=1e-5)
    np.testing.assert_allclose(small, alone, rtol=1e-5)
    assert (whole < 0).all()


def test_a_causal_text_is_the_product_of_its_tokens() -> None:
    model, objective = parts("gpt")
    text = texts(6)[0]
    end = list(SPECIAL).index("eos")
    total = 0.0
    for i, token in enumerate(text):
        before = torch.tensor([end, *text[:i].tolist()])
        row = Batch(before, torch.arange(i + 1), torch.tensor([0, i + 1], dtype=torch.int32), i + 1, before)
        total += model(row).logits()[-1].log_softmax(-1)[token].item()
    assert log_likelihoods(model, objective, [text], max_positions=16)[0] == pytest.approx(total, rel=1e-5)


def test_a_masked_text_is_the_sum_of_each_token_given_all_others() -> None:
    model, objective = parts("bert")
    text = texts(6)[0]
    cls, sep, mask = (list(SPECIAL).index(role) for role in ("cls", "sep", "mask"))
    total = 0.0
    for i, token in enumerate(text):
        row = [cls, *text.tolist(), sep]
        row[i + 1] = mask
        batch = Batch(
            torch.tensor(row), torch.arange(len(row)), torch.tensor([0, len(row)], dtype=torch.int32), len(row),
            torch.tensor([token]), torch.tensor([i + 1]), torch.zeros(len(row), dtype=torch.int64),
        )  # fmt: skip
        total += model(batch).logits()[0].log_softmax(-1)[token].item()
    assert log_likelihoods(model, objective, [text], max_positions=16)[0] == pytest.approx(total, rel=1e-5)


def test_what_cannot_be_scored_is_told(family: str) -> None:
    model, objective = parts(family)
    with pytest.raises(UserError, match="none in text 2"):
        log_likelihoods(model, objective, [[7], []], max_positions=16)
    with pytest.raises(UserError, match="the model's 16 positions; got 17 tokens"):
        log_likelihoods(model, objective, texts(17), max_positions=16)


def test_intervals_hold_the_share_and_shrink() -> None:
    for hits, number in ((0, 5), (5, 5), (40, 100), (4000, 10000)):
        low, high = wilson(hits, number)
        assert 0 <= low <= hits / number <= high <= 1
    assert np.diff(wilson(4000, 10000))[0] < np.diff(wilson(40, 100))[0] / 5
