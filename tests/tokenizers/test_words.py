"""Words as tokens."""

import pytest

from foundling.core.errors import UserError
from foundling.tokenizers.base import Tokenizer
from foundling.tokenizers.words import Config

TEXTS = ["The cat sat. The cat ran!", "A dog sat, the dog ran; 你好 你好", "Élan, élan, elan"]


def names(tokenizer: Tokenizer) -> list[str | None]:
    return [tokenizer.token_of(i) for i in range(tokenizer.vocab_size)]


def test_ids_follow_frequency_and_rare_words_are_unknown() -> None:
    tokenizer = Config(kind="words").build().train(TEXTS)
    found = names(tokenizer)
    assert found[:5] == ["<unk>", "<|endoftext|>", ",", "elan", "the"]
    assert set(found[2:]) == {"the", "cat", "sat", "ran", "dog", ",", "elan", "你", "好"}
    assert tokenizer.encode("The CAT slept.") == [tokenizer.id_of("the"), tokenizer.id_of("cat"), 0, 0]
    assert tokenizer.decode(tokenizer.encode("the cat, 你好")) == "the cat , 你 好"


def test_case_is_kept_and_size_and_count_bound_the_words() -> None:
    cased = Config(kind="words", lowercase=False, min_count=1).build().train(TEXTS)
    assert {"The", "the", "Élan", "élan"} <= set(names(cased))
    few = Config(kind="words", vocab_size=4, min_count=1).build().train(["a a a b b c"])
    assert names(few)[2:] == ["a", "b"]


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(UserError, match="must be able to fill a vocabulary of 100 tokens; got text that yields 11"):
        Config(kind="words", vocab_size=100).build().train(TEXTS)
    with pytest.raises(UserError, match="more than its 2 special tokens; got 2"):
        Config(kind="words", vocab_size=2).build().train(TEXTS)
    with pytest.raises(UserError, match="comes often enough; got none with min_count 9"):
        Config(kind="words", min_count=9).build().train(TEXTS)
