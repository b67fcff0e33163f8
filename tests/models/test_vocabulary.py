"""A model whose tokenizer gets more tokens: the old answers stay, the new rows are what the old pieces were."""

import logging
from typing import Any

import pytest
import tokenizers
import torch

from foundling.core.errors import UserError
from foundling.core.registry import part_names
from foundling.data.batch import Batch, rows_batch
from foundling.models.vocabulary import extend_vocabulary, old_pieces
from foundling.tokenizers.base import SpecialTokens, Tokenizer
from tests.tiny import tiny_model
from tests.tokenizers.conftest import trained

OLD = ["[UNK]", "[SEP]", "play", "##ing", "##ed", "walk", "run", "[PAD]"]


def wordpiece(names: list[str], special: list[str] = ["[UNK]", "[SEP]", "[PAD]"]) -> Tokenizer:  # noqa: B006
    raw = tokenizers.Tokenizer(tokenizers.models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    raw.decoder = tokenizers.decoders.WordPiece(prefix="##")
    raw.add_special_tokens(special)
    return Tokenizer(raw, SpecialTokens({"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]"}), kind="wordpiece")


def extended(model: Any, new: list[str], special: list[str] = ["[UNK]", "[SEP]", "[PAD]"]) -> Any:  # noqa: B006
    generator = torch.Generator().manual_seed(0)
    return extend_vocabulary(model, wordpiece(OLD), wordpiece([*OLD, *new], special), generator)


def random_model(family: str, vocab_size: int = 8, **changes: Any) -> Any:
    model = tiny_model(family, vocab_size, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model.eval()


VARIANTS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("gpt", {}, {"embedding.weight"}),
    ("gpt", {"tied": False}, {"embedding.weight", "head.weight"}),
    ("bert", {"top": "pretraining"}, {"embedding.weight", "head.bias"}),
    ("xlnet", {}, {"embedding.weight", "head.bias"}),
    ("xlnet", {"tied": False}, {"embedding.weight", "head.bias", "head.weight"}),
    ("seq2seq", {"tied": False}, {"embedding.weight", "head.weight"}),
    ("word2vec", {}, {"embedding.weight", "context.weight"}),
]


@pytest.mark.parametrize(("family", "changes", "names"), VARIANTS)
def test_new_rows_are_the_mean_of_the_old_pieces(
    family: str, changes: dict[str, Any], names: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old = random_model(family, **changes)
    new = extended(old, ["playing", "walked", "zzz"])
    before, after = dict(old.named_parameters()), dict(new.named_parameters())
    assert {name for name in after if after[name].shape != before[name].shape} == names
    assert before.keys() == after.keys()
    for name, parameter in after.items():
        known = before[name]
        assert torch.equal(parameter[: len(known)], known), name
        if name in names:
            assert parameter.shape[0] == 11
            torch.testing.assert_close(parameter[8], (known[2] + known[3]) / 2)
            torch.testing.assert_close(parameter[9], (known[5] + known[4]) / 2)
            assert torch.isfinite(parameter[10]).all()
            assert parameter[10].abs().sum() > 0
    assert "3 tokens more, 11 in all: 2 begin as the mean of their old pieces, 1 like the old ones" in caplog.text


def test_every_family_is_tried() -> None:
    assert {family for family, _, _ in VARIANTS} == set(part_names("models"))


@pytest.mark.parametrize("family", ["gpt", "bert"])
def test_old_tokens_are_answered_as_before(family: str) -> None:
    old = random_model(family)
    new = extended(old, ["playing"]).eval()
    tokens_RT = torch.randint(0, 8, (2, 6), generator=torch.Generator().manual_seed(0))
    batch: Batch = rows_batch(tokens_RT, tokens_RT)
    with torch.no_grad():
        torch.testing.assert_close(new(batch).logits()[:, :8], old(batch).logits())


def test_a_vocabulary_as_large_as_the_width_is_not_taken_for_it() -> None:
    old = random_model("gpt", 16, tied=False)  # 16 ids of which the tokenizer has 8; width 16
    new = extended(old, ["playing"])
    assert new.config.vocab_size == 16
    changed = {
        name
        for (name, one), two in zip(old.named_parameters(), new.parameters(), strict=True)
        if not torch.equal(one, two)
    }
    assert changed == {"embedding.weight", "head.weight"}, "spare rows take the new tokens"
    torch.testing.assert_close(new.embedding.weight[8], old.embedding.weight[[2, 3]].mean(0))
    assert torch.equal(new.embedding.weight[9:], old.embedding.weight[9:])


def test_special_tokens_are_drawn_like_the_old_ones() -> None:
    old = random_model("gpt")
    new = extended(old, ["<run>"], ["[UNK]", "[SEP]", "[PAD]", "<run>"])
    row = new.embedding.weight[8]
    spread = old.embedding.weight.std(0).mean()
    assert not any(torch.equal(row, known) for known in old.embedding.weight)
    assert (row - old.embedding.weight.mean(0)).square().mean().sqrt() < 4 * spread


def test_another_tokenizer_is_no_extension() -> None:
    model = random_model("gpt")
    generator = torch.Generator()
    with pytest.raises(UserError, match=r"under their ids; got 'ran' for id 6, which was 'run'"):
        extend_vocabulary(model, wordpiece(OLD), wordpiece([*OLD[:6], "ran", "[PAD]", "x"]), generator)
    with pytest.raises(UserError, match=r"must hold the 8 old tokens; got 7 tokens"):
        extend_vocabulary(model, wordpiece(OLD), wordpiece([*OLD[:6], "[PAD]"]), generator)


@pytest.mark.parametrize("vocab_size", [7, 5])
def test_a_model_without_rows_for_its_own_tokenizer_is_no_beginning(vocab_size: int) -> None:
    """One row short, the first new token would land where the last old one belongs; more, and rows stay empty."""
    with pytest.raises(UserError, match=rf"not have more tokens than the model; got 8 against {vocab_size}"):
        extended(random_model("gpt", vocab_size), ["playing", "walked"])


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_plain_added_tokens_are_read_as_their_text(kind: str) -> None:
    old = trained(kind)
    raw = tokenizers.Tokenizer.from_str(old.json)
    raw.add_tokens(["zebrafish"])
    new = Tokenizer(raw, old.special, kind=kind)
    assert old.decode(old_pieces(new.vocab_size - 1, old, new)) == "zebrafish"
