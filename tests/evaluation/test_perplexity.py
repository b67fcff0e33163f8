"""Every token is scored once, against a slow plain reference and transformers' own loss."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from foundling.core.errors import UserError
from foundling.data.batch import Batch, rows_batch
from foundling.evaluation.perplexity import Score, bits_per_byte, perplexity, score_batches
from foundling.models.base import Model
from foundling.models.gpt import Gpt
from foundling.models.hub import save_model
from foundling.objectives.causal import Causal
from foundling.tokenizers.base import Tokenizer
from foundling.tokenizers.char import Config as CharConfig
from tests.serve.conftest import small_model

TEXTS = [
    ("sea", "the old man and the sea"),
    ("hills", "hills like white elephants, über alles"),
    ("sea", "x"),
    ("sea", "他说大海是蓝的"),
    ("hills", "a clean, well-lighted place"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return CharConfig(kind="char").build().train([text for _, text in TEXTS])


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Gpt:
    return small_model(vocab_size=tokenizer.vocab_size, std=0.3)


def plain(model: Gpt, tokenizer: Tokenizer, row_length: int, context: int) -> dict[str, list[float]]:
    """The losses of each source's tokens, one forward pass a token."""
    ids, sources = [tokenizer.eos_id], [""]
    for source, text in TEXTS:
        new = [*tokenizer.encode(text), tokenizer.eos_id]
        ids, sources = ids + new, sources + [source] * len(new)
    losses: dict[str, list[float]] = {}
    for target in range(1, len(ids)):
        step = row_length - context
        row = 0 if target <= row_length else -(-(target - row_length) // step)
        seen = torch.tensor([ids[row * step : target]])
        with torch.no_grad():
            logits = model(rows_batch(seen, seen)).logits()[-1]
        losses.setdefault(sources[target], []).append(float(-logits.log_softmax(-1)[ids[target]]))
    return losses


@pytest.mark.parametrize(("row_length", "context"), [(8, 0), (8, 3), (8, 7), (1, 0), (40, 0), (40, 20)])
@pytest.mark.parametrize("batch_tokens", [1, 24, 8192])
def test_every_token_is_scored_once_as_a_plain_loop_does(
    model: Gpt, tokenizer: Tokenizer, row_length: int, context: int, batch_tokens: int
) -> None:
    found = perplexity(model, tokenizer, TEXTS, row_length=row_length, context=context, batch_tokens=batch_tokens)
    expected = plain(model, tokenizer, row_length, context)
    assert list(found.by_source) == ["sea", "hills"]
    for source, losses in expected.items():
        score = found.by_source[source]
        texts = [text for name, text in TEXTS if name == source]
        assert score.num_tokens == len(losses) == sum(map(len, texts)) + len(texts)
        assert score.num_documents == len(texts)
        assert score.num_bytes == sum(len(text.encode()) for text in texts)
        assert score.nats == pytest.approx(sum(losses), rel=1e-5)
        assert score.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
    total = found.total
    assert total.nats == pytest.approx(sum(map(sum, expected.values())), rel=1e-5)
    assert total.bits_per_byte == pytest.approx(total.nats / math.log(2) / total.num_bytes)


def test_texts_that_come_in_many_batches_score_the_same(
    model: Gpt, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = perplexity(model, tokenizer, TEXTS, row_length=8, context=2)
    monkeypatch.setattr("foundling.data.tokenize._BATCH_TEXTS", 1)
    parts = perplexity(model, tokenizer, iter(TEXTS), row_length=8, context=2)
    assert parts.total.num_tokens == whole.total.num_tokens
    assert parts.total.nats == pytest.approx(whole.total.nats, rel=1e-6)


def test_the_loss_is_that_of_transformers(model: Gpt, tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(model, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    text = TEXTS[1][1]
    ids = torch.tensor([[tokenizer.eos_id, *tokenizer.encode(text), tokenizer.eos_id]])
    with torch.no_grad():
        loss = float(theirs(input_ids=ids, labels=ids).loss)
    found = perplexity(model, tokenizer, [("x", text)], row_length=40)
    assert found.total.num_tokens == 39
    assert found.total.loss == pytest.approx(loss, rel=1e-5)


def test_context_tokens_are_read_and_not_scored(tokenizer: Tokenizer) -> None:
    """A model that is wrong at the first three positions of a row: with context only the very first row has such."""

    class Positions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

    class WrongAtFirst:
        def scores(self, model: Model, batch: Batch) -> dict[str, torch.Tensor]:
            assert batch.target_index_M is not None
            return {"loss": (batch.positions_N[batch.target_index_M] < 3).float()}

    model: Any = Positions()
    texts = [("x", "abc" * 40)]  # 121 tokens with the end
    few = perplexity(model, tokenizer, texts, row_length=8, objective=WrongAtFirst())
    many = perplexity(model, tokenizer, texts, row_length=8, context=4, objective=WrongAtFirst())
    assert few.total.nats == 15 * 3 + 1
    assert many.total.nats == 3
    assert few.total.num_tokens == many.total.num_tokens == 121


def test_rows_of_a_store_are_scored_for_the_training_loop(model: Gpt, tokenizer: Tokenizer) -> None:
    text = TEXTS[1][1]
    ids = torch.tensor([tokenizer.eos_id, *tokenizer.encode(text), tokenizer.eos_id])
    rows = [rows_batch(ids[None, start : start + 13], ids[None, start + 1 : start + 14]) for start in (0, 13, 26)]
    found = score_batches(model, rows, Causal(), num_bytes=len(text.encode()))
    expected = perplexity(model, tokenizer, [("x", text)], row_length=13).total
    assert found.num_tokens == expected.num_tokens == 39
    assert found.bits_per_byte == pytest.approx(expected.bits_per_byte, rel=1e-6)
    with pytest.raises(UserError, match="0 bytes"):
        score_batches(model, rows, Causal(), num_bytes=0)


def test_nan_is_an_error_and_no_number(tokenizer: Tokenizer) -> None:
    model = small_model(vocab_size=tokenizer.vocab_size)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(UserError, match="must be finite; got NaN"):
        perplexity(model, tokenizer, TEXTS, row_length=8)


def test_faults_are_told(model: Gpt, tokenizer: Tokenizer) -> None:
    for settings in ({"row_length": 0}, {"row_length": 8, "context": 8}, {"row_length": 8, "context": -1}):
        with pytest.raises(UserError, match="context must lie in"):
            perplexity(model, tokenizer, TEXTS, **settings)
    with pytest.raises(UserError, match="text to score"):
        perplexity(model, tokenizer, [("x", "")], row_length=8)
    endless = CharConfig(kind="char", special_tokens={"unk": "<unk>"}).build().train(["abc"])
    endless.special.by_role.pop("eos", None)
    with pytest.raises(UserError, match="eos or sep"):
        perplexity(model, endless, TEXTS, row_length=8)


def test_scores_add_up_and_a_huge_loss_is_an_infinite_perplexity() -> None:
    score = Score(10.0, 4, 5, 1) + Score(6.0, 4, 3, 1)
    assert score == Score(16.0, 8, 8, 2)
    assert score.loss == 2.0
    assert bits_per_byte(math.log(2) * 8, 1) == pytest.approx(8)
    assert Score(1e6, 1, 1, 1).perplexity == math.inf


def test_what_the_tokenizer_does_not_know_is_counted(model: Gpt, tokenizer: Tokenizer) -> None:
    texts = [("a", "the sea"), ("b", "the жж sea"), ("b", "ж")]
    found = perplexity(model, tokenizer, texts, row_length=8)
    assert {source: score.num_unknown for source, score in found.by_source.items()} == {"a": 0, "b": 3}
    assert found.total.figures()["unknown_tokens"] == 3
