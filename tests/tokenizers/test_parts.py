"""Laws of each kind of tokenizer."""

import random

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from foundling.core.errors import UserError
from foundling.tokenizers._pieces import cutting_rule
from foundling.tokenizers.base import SpecialTokens, Tokenizer
from foundling.tokenizers.bpe import Config as Bpe
from foundling.tokenizers.char import Config as Char
from foundling.tokenizers.unigram import Config as Unigram
from foundling.tokenizers.wordpiece import Config as WordPiece
from tests.tokenizers.conftest import trained
from tests.tokenizers.texts import ODD, texts

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
SPACED = st.text(alphabet=st.sampled_from("aB. ,'\n\r\t\xa0\x1c\x85\u2028\u30001中é\u0301s<|>"), max_size=40)


@given(ANY_TEXT | st.sampled_from(["<|endoftext|>", "a<|endoftext|>"]))
def test_bytes_come_back(text: str) -> None:
    bpe = trained("bpe")
    assert bpe.decode(bpe.encode(text)) == text


@given(ANY_TEXT | st.sampled_from(["<s>", "a<unk>b", "<0x41>", "</s><0xE4><0xBD>", "<|endoftext|>"]))
def test_unigram_comes_back_but_for_its_own_mark(text: str) -> None:
    unigram = trained("unigram")
    ids = unigram.encode(text)
    assert unigram.decode(ids) == text.replace("▁", " ")
    assert unigram.unk_id not in ids


def test_known_characters_come_back() -> None:
    char = trained("char")
    for text in texts(20):
        assert char.decode(char.encode(text)) == text
        assert len(char.encode(text)) == len(text)
    assert char.encode("ж") == [char.unk_id]


def test_wordpiece_keeps_words_and_knows_its_alphabet() -> None:
    wordpiece = trained("wordpiece")
    assert wordpiece.decode(wordpiece.encode("The  quick\nbrown fox.")) == "the quick brown fox."
    assert wordpiece.unk_id not in wordpiece.encode(" ".join(texts(50)))
    assert wordpiece.encode("ж") == [wordpiece.unk_id]


def test_wordpiece_cases() -> None:
    cased = WordPiece(vocab_size=240, lowercase=False).build().train(texts())
    assert cased.decode(cased.encode("The fox")) == "The fox"


@pytest.mark.parametrize("text", ODD)
def test_batches_equal_single_texts(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode_batch([text])[0].tolist() == tokenizer.encode(text)


@settings(max_examples=300)
@given(st.lists(SPACED | ANY_TEXT, max_size=4), st.sampled_from(["bpe", "wordpiece", "unigram", "char"]))
def test_batches_equal_single_texts_for_any_white_space(batch: list[str], kind: str) -> None:
    tokenizer = trained(kind)
    assert cutting_rule(tokenizer._raw) is not None
    assert [ids.tolist() for ids in tokenizer.encode_batch(batch)] == [tokenizer.encode(text) for text in batch]


def _gpt2_like() -> Tokenizer:
    raw = tokenizers.Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts(), trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return Tokenizer(raw, SpecialTokens(), kind="bpe")


GPT2_LIKE = _gpt2_like()


@settings(max_examples=200)
@given(st.lists(SPACED, max_size=4))
def test_batches_of_gpt2s_rule_equal_single_texts(batch: list[str]) -> None:
    assert cutting_rule(GPT2_LIKE._raw) is not None
    assert [i.tolist() for i in GPT2_LIKE.encode_batch(batch)] == [GPT2_LIKE.encode(text) for text in batch]


def test_unknown_rules_are_not_cut() -> None:
    raw = tokenizers.Tokenizer.from_str(trained("bpe").json)
    raw.add_tokens(["fox jumps"])  # a token that spans white space
    plain = Tokenizer(raw, SpecialTokens(), kind="bpe")
    assert cutting_rule(raw) is None
    assert plain.encode_batch(["the fox jumps over"])[0].tolist() == plain.encode("the fox jumps over")


def test_the_cache_forgets_and_stays_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundling.tokenizers._pieces._MAX_CACHED", 8)
    bpe = Tokenizer(tokenizers.Tokenizer.from_str(trained("bpe").json), SpecialTokens(), kind="bpe")
    for start in range(0, 40, 4):
        batch = texts(40)[start : start + 4]
        assert [i.tolist() for i in bpe.encode_batch(batch)] == [bpe.encode(text) for text in batch]


@pytest.mark.parametrize(
    ("config", "exact"),
    [(Bpe(vocab_size=400), True), (WordPiece(vocab_size=200), True), (Unigram(vocab_size=420), True), (Char(), False)],
    ids=["bpe", "wordpiece", "unigram", "char"],
)
def test_training_is_deterministic_and_fills_the_vocabulary(config: Bpe, exact: bool) -> None:
    first, second = config.build().train(texts()), config.build().train(iter(texts()))
    assert first.json == second.json
    assert first.vocab_size == config.vocab_size or not exact


@pytest.mark.parametrize("config", [Bpe(vocab_size="32K"), WordPiece(vocab_size="32K"), Unigram(vocab_size="32K")])
def test_a_vocabulary_too_large_is_told_with_the_one_that_fits(config: Bpe) -> None:
    with pytest.raises(UserError, match=r"32000 tokens; got text that yields (\d+); set vocab_size .* to \1") as told:
        config.build().train(texts(40))
    fits = int(str(told.value).split("yields ")[1].split(";")[0])
    smaller = config.model_copy(update={"vocab_size": fits})
    assert smaller.build().train(texts(40)).vocab_size == fits


def test_a_character_vocabulary_too_large_or_cut() -> None:
    with pytest.raises(UserError, match="yields"):
        Char(vocab_size=5000).build().train(texts(10))
    assert Char(vocab_size=10).build().train(texts(10)).vocab_size == 10


@pytest.mark.parametrize("config", [Bpe(vocab_size=100), WordPiece(vocab_size=20), Unigram(vocab_size=270)])
def test_a_vocabulary_too_small_is_told(config: Bpe) -> None:
    with pytest.raises(UserError, match="at least"):
        config.build().train(texts(40))


def test_special_token_ids() -> None:
    bpe, wordpiece = trained("bpe"), trained("wordpiece")
    assert bpe.eos_id == bpe.bos_id == bpe.pad_id == 0
    assert bpe.mask_id is bpe.cls_id is bpe.unk_id is None
    named = (wordpiece.pad_id, wordpiece.unk_id, wordpiece.cls_id, wordpiece.sep_id, wordpiece.mask_id)
    assert named == (0, 1, 2, 3, 4)
    assert wordpiece.special_ids == [0, 1, 2, 3, 4]
    more = Bpe(vocab_size=400, special_tokens={"mask": "<mask>"}, extra_tokens=["<|user|>"]).build().train(texts())
    assert more.mask_id == 1
    assert more.id_of("<|user|>") == 2


def test_special_tokens_in_a_text_are_text_unless_asked() -> None:
    bpe, wordpiece = trained("bpe"), trained("wordpiece")
    assert bpe.eos_id not in bpe.encode("a<|endoftext|>b")
    assert bpe.eos_id in bpe.encode("a<|endoftext|>b", special=True)
    framed = wordpiece.encode("the fox", special=True)
    assert framed == [wordpiece.cls_id, *wordpiece.encode("the fox"), wordpiece.sep_id]


def test_digits_stand_alone() -> None:
    many = ["2024 2024 2024 1999 1999"] * 50 + texts()
    for config in (Bpe(vocab_size=400), Unigram(vocab_size=430)):
        tokenizer = config.build().train(many)
        digits = [tokenizer.token_of(i) for i in tokenizer.encode("2024")]
        assert len([t for t in digits if t and t in "0123456789"]) == 4


def test_unigram_prefers_likely_pieces_and_scores_sum_to_one() -> None:
    import json

    unigram = trained("unigram")
    vocabulary = json.loads(unigram.json)["model"]["vocab"]
    scores = np.array([score for _, score in vocabulary[len(unigram.special_ids) + 256 :]])
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-4)
    assert len(unigram.encode(" quick")) < 5


def test_order_of_texts_does_not_change_counted_vocabularies() -> None:
    shuffled = texts()
    random.Random(1).shuffle(shuffled)
    assert Unigram(vocab_size=420).build().train(shuffled).json == trained("unigram").json
    assert Char().build().train(shuffled).json == trained("char").json


def test_long_documents_train_like_short_ones() -> None:
    short = texts()
    assert Bpe(vocab_size=400).build().train(["".join(short) * 20]).vocab_size == 400


@pytest.mark.parametrize("config", [Bpe(), WordPiece(), Unigram(), Char()])
def test_no_text_is_told(config: Bpe) -> None:
    with pytest.raises(UserError, match="must not be empty"):
        config.build().train(["", ""])
