"""Tokens along words: none reaches from one word into the next, and a word has the tokens that it has in its text."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from foundling.core.registry import load_part
from foundling.tokenizers.base import SpecialTokens, Tokenizer
from tests.tiny import CHINESE, ENGLISH, sentences

TEXT = "the old sailor carried seven wooden boxes over a narrow bridge"


def ours(kind: str) -> Tokenizer:
    size = {"bpe": 330, "wordpiece": 150, "unigram": 380, "char": 70}[kind]
    found: Tokenizer = load_part("tokenizers", kind).Config(kind=kind, vocab_size=size).build().train(sentences(60))
    return found


def foreign(pre: Any, normalizer: Any = None, marks: str = "▁") -> Tokenizer:
    """A unigram or a byte-level tokenizer with other rules for spaces than ours."""
    if isinstance(pre, pre_tokenizers.ByteLevel):
        raw = tokenizers.Tokenizer(models.BPE())
        raw.pre_tokenizer, raw.decoder = pre, decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        raw.train_from_iterator(
            sentences(60), trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
        )
    else:
        pieces = [*{marks, *CHINESE, *"".join(ENGLISH), "。", ".", "，"}, *(marks + word for word in ENGLISH)]
        pieces += ["天明月", "over a"]
        raw = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), *((piece, -3.0) for piece in pieces)], unk_id=0))
        if pre is not None:
            raw.pre_tokenizer = pre
        if normalizer is not None:
            raw.normalizer = normalizer
    return Tokenizer(raw, SpecialTokens({}), kind="foreign")


LLAMA = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
XLNET = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
MADE = {
    **{kind: lambda kind=kind: ours(kind) for kind in ("bpe", "wordpiece", "unigram", "char")},
    "bytes with a space before": lambda: foreign(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace": lambda: foreign(pre_tokenizers.Metaspace(prepend_scheme="first")),
    "xlnet": lambda: foreign(XLNET),
    "llama": lambda: foreign(None, LLAMA),
}


def spans_of(text: str) -> list[tuple[int, int]]:
    ends = [i for i, c in enumerate(f"{text} ") if c == " "]
    return [(start + 1, end) for start, end in pairwise([-1, *ends])]


@pytest.mark.parametrize("name", MADE)
def test_words_between_spaces_have_the_tokens_of_the_text(name: str) -> None:
    tokenizer = MADE[name]()
    found = tokenizer.encode_words([TEXT], [spans_of(TEXT)])[0]
    assert found.ids.tolist() == tokenizer.encode(TEXT)
    for word, (start, end) in enumerate(spans_of(TEXT)):
        ids = found.ids[found.words == word]
        assert tokenizer.decode(ids).replace("▁", " ").strip(" #") == TEXT[start:end]


@pytest.mark.parametrize("name", MADE)
def test_words_that_touch_share_no_token(name: str) -> None:
    """Chinese by character, a word cut at every letter, and the marks between words in the text itself."""
    tokenizer = MADE[name]()
    for text in ("床前明月光", "sailor", "old␞sailor", "a 天明月 boxes"):
        spans = [(i, i + 1) for i, c in enumerate(text) if c != " "]
        found = tokenizer.encode_words([text], [spans])[0]
        words = found.words[found.words >= 0]
        assert sorted(set(words.tolist())) == list(range(len(spans)))
        assert (np.diff(words) >= 0).all()
        assert len(found.ids) >= len(spans)


def test_only_a_word_after_a_space_has_it() -> None:
    tokenizer = ours("bpe")
    (found,) = tokenizer.encode_words(["the, old"], [[(0, 3), (3, 4), (5, 8)]])
    first = [tokenizer.token_of(int(found.ids[np.flatnonzero(found.words == word)[0]])) for word in range(3)]
    assert [str(token).startswith("Ġ") for token in first] == [False, False, True]


def test_a_word_that_the_tokenizer_drops_has_no_token() -> None:
    (found,) = ours("wordpiece").encode_words(["old \u200b sailor"], [[(0, 3), (4, 5), (6, 12)]])
    assert set(found.words.tolist()) == {0, 2}
    (nothing,) = ours("wordpiece").encode_words([""], [[]])
    assert len(nothing.ids) == len(nothing.words) == 0


def test_special_tokens_in_a_text_are_text() -> None:
    tokenizer = ours("wordpiece")
    (found,) = tokenizer.encode_words(["[SEP] old"], [[(0, 5), (6, 9)]])
    assert tokenizer.sep_id not in found.ids
