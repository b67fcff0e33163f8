"""How likely texts are to models of each family: against one text at a time, by the definition."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.evaluation.intervals import wilson
from foundling.evaluation.likelihood import log_likelihoods
from foundling.tokenizers.base import SpecialTokens, Tokenizer
from tests.tiny import CHINESE, FIRST_ORDINARY, SPECIAL, tiny_model, tiny_tokenizer

VOCAB = 50
FAMILIES = {"gpt": "causal", "bert": "mlm", "xlnet": "permutation"}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def parts(family: str) -> tuple[Any, Any]:
    config = load_part("objectives", FAMILIES[family]).Config()
    return tiny_model(family, VOCAB).eval(), config.build(tiny_tokenizer(VOCAB))


def texts(*lengths: int) -> list[Any]:
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
    frame = 0 if family == "gpt" else 2
    assert len(log_likelihoods(model, objective, texts(16 - frame), max_positions=16)) == 1
    with pytest.raises(UserError, match="the model's 16 positions; got 17 tokens in text 2"):
        log_likelihoods(model, objective, texts(3, 17 - frame), max_positions=16)
    with pytest.raises(UserError, match=r"got 17 tokens in b\.txt"):
        log_likelihoods(model, objective, texts(3, 17 - frame), max_positions=16, names=["a.txt", "b.txt"])
    with pytest.raises(UserError, match=r"none in a\.txt"):
        log_likelihoods(model, objective, [[]], max_positions=16, names=["a.txt"])


SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "gpt": {"loss": {"loss": {"kind": "label_smoothing"}}, "prefix": {"prefix": [0.2, 0.6]}},
    "bert": {
        "loss": {"loss": {"kind": "focal"}},
        "mask_rate": {"mask_rate": 0.3},
        "mask_share": {"mask_share": 0.5},
        "random_share": {"random_share": 0.0},
        "unit": {"unit": "word"},
        "span_end_rate": {"unit": "span", "span_end_rate": 0.5},
        "longest_span": {"unit": "span", "longest_span": 3},
        "chinese_words": {"unit": "word", "chinese_words": True},
        "next": {"next": {"kind": "sop"}},
    },
    "xlnet": {
        "loss": {"loss": {"kind": "focal"}},
        "one_in": {"one_in": 1},
        "max_span": {"max_span": 1},
        "window": {"window": 8},
        "memory": {"memory": 15},
        "bidirectional": {"memory": 15, "bidirectional": True},
    },
}
"""Of each family's objective every setting, changed."""


def test_texts_are_scored_alike_however_the_model_was_trained(family: str) -> None:
    """A model folder does not tell its objective's settings, so none may change what a text is to the model."""
    kind = FAMILIES[family]
    config = load_part("objectives", kind).Config
    assert SETTINGS[family].keys() == config.model_fields.keys() - {"kind"}
    tokenizer, given = wordpiece_tokenizer(), texts(5, 3)
    plain = config().build(tokenizer)
    for name, changes in SETTINGS[family].items():
        if name == "chinese_words" and find_spec("jieba") is None:
            continue
        other = config.model_validate({"kind": kind, **changes}).build(tokenizer)
        assert other.text_rows(5) == plain.text_rows(5), name
        assert other.pseudo_likelihood == plain.pseudo_likelihood, name
        one, two = plain.text_batch(given), other.text_batch(given)
        for part in Batch.__dataclass_fields__:
            a, b = getattr(one, part), getattr(two, part)
            same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
            assert same, f"{name}: {part}"


def wordpiece_tokenizer() -> Tokenizer:
    """One that marks the pieces of words and has Chinese characters, which some settings ask for."""
    names = [*SPECIAL.values(), "##s", *dict.fromkeys(CHINESE)]
    model = tokenizers.models.WordPiece({name: i for i, name in enumerate(names)}, unk_token=SPECIAL["unk"])
    raw = tokenizers.Tokenizer(model)
    raw.add_special_tokens(list(SPECIAL.values()))
    return Tokenizer(raw, SpecialTokens(dict(SPECIAL)), kind="wordpiece")


def test_intervals_hold_the_share_and_shrink() -> None:
    for hits, number in ((0, 5), (5, 5), (40, 100), (4000, 10000)):
        low, high = wilson(hits, number)
        assert 0 <= low <= hits / number <= high <= 1
    assert np.diff(wilson(4000, 10000))[0] < np.diff(wilson(40, 100))[0] / 5
