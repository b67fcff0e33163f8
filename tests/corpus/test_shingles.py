"""Hashed tokens against plain Python."""

import random

import pytest

from foundling.corpus.shingles import shingles_of, tokens_of


def spans(text: str) -> list[str]:
    """The tokens as text, cut from the UTF-16 units that they say they are."""
    data, tokens = text.encode("utf-16-le"), tokens_of(text)
    return [data[2 * a : 2 * b].decode("utf-16-le") for a, b in zip(tokens.starts, tokens.ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        (" \n–!", []),
        ("The cat, the hat.", ["The", "cat", "the", "hat"]),
        ("don't  stop\n123", ["don", "t", "stop", "123"]),
        ("海上生明月，天涯", list("海上生明月天涯")),
        ("GPT模型2024年", ["GPT", "模", "型", "2024", "年"]),
        ("naïve Straße café\u0301", ["naïve", "Straße", "café\u0301"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("안녕 세상", ["안녕", "세상"]),
        ("かなカナ", list("かなカナ")),
    ],
)
def test_tokens(text: str, wanted: list[str]) -> None:
    assert spans(text) == wanted


def test_equal_tokens_have_equal_hashes_wherever_they_stand() -> None:
    rng = random.Random(0)
    words = [f"{rng.choice('abcdéжß')}{number}" for number in range(3000)]
    chosen = [rng.choice(words) for _ in range(40_000)]  # several chunks
    text = "".join(word + rng.choice([" ", "\n\n", ", ", "—"]) for word in chosen)
    hashes = tokens_of(text).hashes.tolist()
    told: dict[str, int] = {}
    assert [told.setdefault(word, value) for word, value in zip(chosen, hashes, strict=True)] == hashes
    assert len(set(told.values())) == len(told)


def test_case_width_white_space_and_punctuation_are_folded() -> None:
    plain = tokens_of("the quick brown fox").hashes.tolist()
    assert tokens_of("“The  QUICK,\nbrown–Ｆｏｘ!”").hashes.tolist() == plain
    assert tokens_of("thequick brown fox").hashes.tolist() != plain


def test_most_characters_of_an_unspaced_script_make_a_text_unspaced() -> None:
    assert tokens_of("海上生明月").is_unspaced
    assert tokens_of("สวัสดี").is_unspaced
    assert not tokens_of("the word 海 stands alone").is_unspaced


def test_a_token_longer_than_a_chunk_is_cut_and_nothing_is_lost() -> None:
    text = "a" * 100_000 + " b"
    assert "".join(spans(text)) == "a" * 100_000 + "b"


@pytest.mark.parametrize("length", [1, 2, 5])
def test_shingles_are_those_of_a_plain_loop(length: int) -> None:
    rng = random.Random(1)
    words = [rng.choice("abc") for _ in range(400)]
    hashes = shingles_of(tokens_of(" ".join(words)).hashes, length).tolist()
    told: dict[tuple[str, ...], int] = {}
    for at, value in enumerate(hashes):
        assert told.setdefault(tuple(words[at : at + length]), value) == value
    assert len(hashes) == len(words) - length + 1
    assert len(set(told.values())) == len(told)


def test_a_short_text_is_one_shingle_that_no_longer_text_has() -> None:
    short = shingles_of(tokens_of("a b").hashes, 3)
    assert len(short) == 1
    assert short[0] not in shingles_of(tokens_of("a b c d").hashes, 3)
    assert len(shingles_of(tokens_of("").hashes, 3)) == 0
