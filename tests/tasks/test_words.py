"""Words of a text: where they are, in any script."""

import pytest

from foundling.tasks.words import join_words, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Obama's U.S. trip_1, ok", ["Obama", "'", "s", "U", ".", "S", ".", "trip", "_", "1", ",", "ok"]),
        ("中国的Obama访问", ["中", "国", "的", "Obama", "访", "问"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("cafe\u0301s été", ["cafe\u0301s", "été"]),
        ("👩🏽\u200d🚀👍 a\ufe0f", ["👩🏽\u200d🚀", "👍", "a\ufe0f"]),
        ("x\u200by\x00z", ["x", "y", "z"]),
        ("서울은 크다", ["서울은", "크다"]),
        ("  \n", []),
        ("", []),
    ],
)  # fmt: skip
def test_words_are_where_they_stand(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in split_words(text)] == words


def test_the_short_way_for_plain_text_is_the_long_one() -> None:
    """ASCII has a pattern of its own; a word of another script behind must change nothing before it."""
    text = "".join(chr(code) for code in range(128)) * 2
    assert split_words(text) == split_words(f"{text} é")[:-1]


def test_given_words_stand_in_the_text_that_they_make() -> None:
    words = ["中", "国", "in", "", "2024", "年", "。", "(", "ok", ")"]
    text, spans = join_words(words)
    assert text == "中国 in  2024 年。 ( ok )"
    assert [text[start:end] for start, end in spans] == words
    assert join_words([]) == ("", [])
