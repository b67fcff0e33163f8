"""Counted at once, words are as many as the plain rule finds one by one."""

from hypothesis import given
from hypothesis import strategies as st

from foundling.corpus.scripts import words_of
from foundling.corpus.word_counts import count_words

# Letters, a digit, joiners, marks (also far ones), characters that stand alone, spaces, a lone surrogate.
MARKS = ["\u0301", "\u093f", "\u200d", "\U0001e944"]
PIECES = [*"aZ9_é한ह字ぁก。 \n'’‑-", *MARKS, "\U00020000", "\U0001e900", "😀", "\ud800"]
TEXTS = st.lists(st.text(st.sampled_from(PIECES), max_size=12), max_size=6)


@given(TEXTS)
def test_as_many_as_the_rule_finds(texts: list[str]) -> None:
    assert count_words(texts) == [len(words_of(text)) for text in texts]


def test_every_character_alone_between_letters_and_behind_a_hyphen() -> None:
    codes = [code for code in range(0x110000) if code < 0x3000 or code % 7 == 0 or 0xE0000 <= code < 0xE0200]
    for form in ("{}", "a{}b", "a-{}", "字{}-a"):
        texts = [form.format(chr(code)) for code in codes]
        assert count_words(texts) == [len(words_of(text)) for text in texts]


def test_real_sentences() -> None:
    texts = ["Don't stop: the well-known 3rd one -- 'now'!", "Der Käse, l’été", "我用GPU。好!", "हिन्दी भाषा", " … ", ""]
    assert count_words(texts) == [7, 3, 4, 2, 0, 0]
