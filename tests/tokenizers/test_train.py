"""`train_tokenizer`: folders made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from foundling.core.errors import UserError
from foundling.core.files import read_manifest
from foundling.tokenizers._text import TextStream, chunks, frequent
from foundling.tokenizers.bpe import Config
from foundling.tokenizers.train import train_tokenizer
from tests.tokenizers.texts import texts


def _never() -> Iterator[str]:
    raise AssertionError("the texts were read")
    yield ""


def test_the_same_inputs_are_not_trained_again(tmp_path: Path) -> None:
    out = tmp_path / "a" / "t"
    first = train_tokenizer(iter(texts()), Config(vocab_size=400), out, inputs={"corpus": "k"})
    again = train_tokenizer(_never(), Config(vocab_size=400), out, inputs={"corpus": "k"})
    assert again.sha256 == first.sha256
    manifest = read_manifest(out, "tokenizer")
    assert manifest["counts"]["documents"] == 200
    assert manifest["counts"]["characters"] == sum(map(len, texts()))


@pytest.mark.parametrize(("size", "key"), [(401, "k"), (400, "other")])
def test_another_tokenizer_is_not_overwritten_unasked(tmp_path: Path, size: int, key: str) -> None:
    out = tmp_path / "t"
    first = train_tokenizer(texts(), Config(vocab_size=400), out, inputs={"corpus": "k"})
    with pytest.raises(UserError, match="--replace"):
        train_tokenizer(texts(), Config(vocab_size=size), out, inputs={"corpus": key})
    assert read_manifest(out, "tokenizer")["counts"]["sha256"] == first.sha256
    replaced = train_tokenizer(texts(), Config(vocab_size=size), out, inputs={"corpus": key}, replace=True)
    assert read_manifest(out, "tokenizer")["counts"]["sha256"] == replaced.sha256


def test_other_things_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else"):
        train_tokenizer(texts(), Config(vocab_size=400), tmp_path, inputs={}, replace=True)
    assert (tmp_path / "thesis.txt").exists()


def test_a_fault_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="yields"):
        train_tokenizer(texts(20), Config(vocab_size="32K"), tmp_path / "t", inputs={})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_saved_without_a_folder() -> None:
    assert train_tokenizer(texts(), Config(vocab_size=400), None, inputs={}).vocab_size == 400


@pytest.mark.parametrize("text", ["", "short", "a b\n" * 50, "x" * 50, " " * 50, "word " * 7 + "y" * 40 + " z"])
def test_chunks_are_bounded_and_lose_nothing(text: str) -> None:
    parts = list(chunks(text, 16))
    assert "".join(parts) == text
    assert all(0 < len(part) <= 16 for part in parts)
    assert list(chunks("word " * 7, 16)) == ["word word word", " word word word", " word "]


def test_characters_are_counted() -> None:
    stream = TextStream(["aab", "𝄞a中"])
    assert list(stream) == ["aab", "𝄞a中"]
    assert stream.characters == {"a": 3, "b": 1, "中": 1, "𝄞": 1}
    assert frequent({"a": 1, "é": 90, "中": 9}, 0.9) == ["é", "a"]
