"""Streamed text is whole characters, and in sum the text of the whole."""

import random

import pytest

from foundling.core.registry import load_part
from foundling.decoding.detokenize import StreamDecoder
from foundling.tokenizers.base import Tokenizer
from tests.serve.conftest import TEXT

SIZES = {"bpe": 300, "wordpiece": 75, "unigram": 340, "char": 0}


@pytest.fixture(scope="module", params=SIZES)
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    config = load_part("tokenizers", request.param).Config(kind=request.param, vocab_size=SIZES[request.param])
    return config.build().train([TEXT])


def pieces_of(tokenizer: Tokenizer, ids: list[int], prompt: list[int]) -> list[str]:
    decoder = StreamDecoder(tokenizer.decode, prompt)
    return [*(decoder.add(token) for token in ids), decoder.end()]


def test_the_sum_of_the_pieces_is_the_whole(any_tokenizer: Tokenizer) -> None:
    ids = any_tokenizer.encode(TEXT[:400])
    for cut in (0, 1, 7, 60):
        prompt = any_tokenizer.decode(ids[:cut])
        pieces = pieces_of(any_tokenizer, ids[cut:], ids[:cut])
        if "\N{REPLACEMENT CHARACTER}" not in prompt:  # the cut is between characters
            assert prompt + "".join(pieces) == any_tokenizer.decode(ids)
        assert sum(map(bool, pieces)) > 20


def test_random_tokens_too(any_tokenizer: Tokenizer) -> None:
    """Ids that no text has: half characters and special tokens among them."""
    draw = random.Random(0)
    start = any_tokenizer.encode("The old man")
    tokens = [any_tokenizer.token_of(i) for i in range(any_tokenizer.vocab_size)]
    known = [i for i, token in enumerate(tokens) if token and not token.startswith("<0x")]  # byte fallback: not exact
    for _ in range(30):
        ids = draw.choices(known, k=40)
        whole = any_tokenizer.decode(start + ids)
        assert any_tokenizer.decode(start) + "".join(pieces_of(any_tokenizer, ids, start)) == whole


@pytest.mark.parametrize("text", ["龘靐齉齾爩鱻麤龗灪吁龖", "a👍🏽👩\u200d💻 b", "ሴ ሴሴሴሴሴሴሴሴ x"])
def test_characters_beyond_the_vocabulary_come_whole(any_tokenizer: Tokenizer, text: str) -> None:
    ids = any_tokenizer.encode(text)
    for cut in range(len(ids)):
        pieces = pieces_of(any_tokenizer, ids[cut:], ids[:cut])
        prompt = any_tokenizer.decode(ids[:cut])
        if "\N{REPLACEMENT CHARACTER}" not in prompt:
            assert prompt + "".join(pieces) == any_tokenizer.decode(ids)


def test_a_character_of_several_tokens_comes_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("é€😀 x")
    assert len(ids) > 6, "these characters must be spread over several tokens"
    pieces = [piece for piece in pieces_of(tokenizer, ids, []) if piece]
    assert "".join(pieces) == "é€😀 x"
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_a_character_that_never_gets_whole_comes_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a😀")[:-1]
    pieces = pieces_of(tokenizer, ids, [])
    assert pieces[0] == "a"
    assert not any(pieces[1:-1])
    assert set(pieces[-1]) == {"\N{REPLACEMENT CHARACTER}"}


def test_bytes_that_become_no_character_do_not_hold_the_text_up(tokenizer: Tokenizer) -> None:
    half = tokenizer.encode("😀")[0]
    pieces = pieces_of(tokenizer, [half] * 50, [])
    assert "".join(pieces) == tokenizer.decode([half] * 50)
    assert len([piece for piece in pieces[:-1] if piece]) > 40


def test_a_prompt_may_end_within_a_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a😀")
    assert "".join(pieces_of(tokenizer, ids[-1:], ids[:-1])) == "😀"
