"""A tokenizer with more tokens: the old ids stay, the new words are one token, other text is read as before."""

from pathlib import Path

import pytest

from foundling.core.errors import UserError
from foundling.tokenizers.base import Tokenizer, load_tokenizer
from foundling.tokenizers.extend import extend_tokenizer, read_words, words_worth_a_token
from foundling.tokenizers.words import Config as WordsConfig
from tests.tokenizers.conftest import trained
from tests.tokenizers.test_cli import _run
from tests.tokenizers.texts import ODD, texts

NEW = ["xylophon", "zygotism"]


def test_new_words_are_one_token_and_all_else_is_read_as_before(tokenizer: Tokenizer) -> None:
    extended = extend_tokenizer(tokenizer, [*NEW, NEW[0]])
    first = tokenizer.vocab_size
    assert [extended.token_of(i) for i in range(first + 2)] == [tokenizer.token_of(i) for i in range(first)] + NEW
    for i, word in enumerate(NEW):
        ids = extended.encode(f"a {word}.")
        assert ids.count(first + i) == 1
        assert tokenizer.encode("a") == ids[: len(tokenizer.encode("a"))]
        assert len(ids) < len(tokenizer.encode(f"a {word}.")) or tokenizer.kind == "wordpiece"
        assert extended.decode(ids).replace(" ", "") == f"a{word}."
    for text in [*ODD, *texts(20)]:
        assert extended.encode(text) == tokenizer.encode(text)
        assert extended.encode_batch([text])[0].tolist() == tokenizer.encode(text)
    assert extended.special == tokenizer.special


def test_a_new_word_is_not_found_within_others(tokenizer: Tokenizer) -> None:
    extended = extend_tokenizer(tokenizer, ["xylo"])
    if tokenizer.kind != "wordpiece":  # there a word's beginning may be a token of others, as all its tokens may
        assert tokenizer.vocab_size not in extended.encode("a xylophon")


def test_vocabularies_of_words_take_words_as_they_are_read() -> None:
    tokenizer = WordsConfig(kind="words").build().train(["one two one two"])
    extended = extend_tokenizer(tokenizer, ["Three", "one", "a-b"])
    assert extended.vocab_size == tokenizer.vocab_size + 1
    assert extended.encode("one THREE") == [tokenizer.id_of("one"), tokenizer.vocab_size]


def test_words_that_save_the_most_tokens_are_chosen() -> None:
    tokenizer = trained("bpe")
    some = ["the pneumonia patient", "pneumonia and pneumonia", "myocarditis and myocarditis", "once arteriosclerosis"]
    assert words_worth_a_token(tokenizer, some * 1, 9)[:2] == ["pneumonia", "myocarditis"]
    assert words_worth_a_token(tokenizer, some, 1) == ["pneumonia"]
    clauses = ["心肌梗死患者应立即就医。心肌梗死患者应立即就医。"] * 3
    assert words_worth_a_token(tokenizer, [*some, *clauses], 99) == words_worth_a_token(tokenizer, some, 99)
    with pytest.raises(UserError, match="parted by spaces; got none; give a list of them: --words FILE"):
        words_worth_a_token(tokenizer, clauses, 9)
    assert "arteriosclerosis" not in words_worth_a_token(tokenizer, some, 9), "it came once"


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    tokenizer = trained("bpe")
    with pytest.raises(UserError, match=r"without white space; got 'two words'"):
        extend_tokenizer(tokenizer, ["two words"])
    extended = extend_tokenizer(tokenizer, NEW)
    with pytest.raises(UserError, match="one that is no token yet"):
        extend_tokenizer(extended, NEW)
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match="one word a line"):
        read_words(tmp_path / "empty.txt")
    with pytest.raises(UserError, match="UTF-8 text file"):
        read_words(tmp_path / "none.txt")


def test_the_command_writes_a_folder(tmp_path: Path) -> None:
    trained("wordpiece").save(tmp_path / "old")
    (tmp_path / "words.txt").write_text("\n".join(NEW) + "\n", encoding="utf-8")
    assert "2 new tokens: xylophon, zygotism" in _run(
        "extend", tmp_path / "old", "--words", tmp_path / "words.txt", "--out", tmp_path / "new"
    )
    assert load_tokenizer(tmp_path / "new").vocab_size == trained("wordpiece").vocab_size + 2
    (tmp_path / "text.txt").write_text("Pneumonia was pneumonia. " * 20, encoding="utf-8")
    _run("extend", tmp_path / "old", "--corpus", tmp_path / "text.txt", "--add", 5, "--out", tmp_path / "more")
    assert load_tokenizer(tmp_path / "more").id_of("pneumonia") is not None
    with pytest.raises(UserError, match="silently take another's place"):
        _run("extend", tmp_path / "old", "--words", tmp_path / "words.txt", "--out", tmp_path / "new")
    with pytest.raises(UserError, match="give one of --words and --corpus; got neither"):
        _run("extend", tmp_path / "old", "--out", tmp_path / "x")
