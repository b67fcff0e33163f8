"""Word vectors as initial embeddings: what files may look like, who gets which vector, what is told."""

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch

from foundling.core.errors import UserError
from foundling.models.vectors import Embeddings, VectorFile, embed, find_vectors, words_of
from foundling.nn.init import rows_like
from foundling.tokenizers.base import SpecialTokens, Tokenizer
from tests.tokenizers.conftest import trained


def pieces_tokenizer() -> Tokenizer:
    """WordPiece of a few words and pieces."""
    names = ["[UNK]", "[SEP]", "cat", "dog", "Rome", "walk", "##ing", "##s", "zebra"]
    raw = tokenizers.Tokenizer(tokenizers.models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    raw.decoder = tokenizers.decoders.WordPiece(prefix="##")
    raw.add_special_tokens(["[UNK]", "[SEP]"])
    return Tokenizer(raw, SpecialTokens({"unk": "[UNK]", "sep": "[SEP]"}), kind="wordpiece")


LINES = ["cat 1 2 3", "dog 2 3 4", "rome 5 5 5", "walking 6 0 0", "walks 0 6 0", "dogs 0 0 6"]


def write(path: Path, lines: list[str], ending: str = "\n") -> Path:
    path.write_bytes("".join(line + ending for line in lines).encode())
    return path


def row(tokenizer: Tokenizer, rows: np.ndarray, name: str) -> list[float]:
    found = tokenizer.id_of(name)
    assert found is not None
    return rows[found].tolist()


def test_each_token_gets_the_best_that_the_file_has(tmp_path: Path) -> None:
    tokenizer = pieces_tokenizer()
    found = find_vectors(VectorFile.open(write(tmp_path / "v.txt", LINES)), tokenizer, 100)
    assert row(tokenizer, found.rows_VD, "cat") == [1, 2, 3]
    assert row(tokenizer, found.rows_VD, "Rome") == [5, 5, 5], "in lower case"
    assert row(tokenizer, found.rows_VD, "walk") == [3, 3, 0], "the mean of walking and walks"
    assert row(tokenizer, found.rows_VD, "##ing") == [6, 0, 0]
    assert row(tokenizer, found.rows_VD, "##s") == [0, 3, 3], "the mean of walks and dogs"
    assert row(tokenizer, found.rows_VD, "dog") == [2, 3, 4], "the word itself wins over dogs"
    names = [tokenizer.token_of(int(i)) for i in np.flatnonzero(~found.direct_V & ~found.pieced_V)]
    assert names == ["[UNK]", "[SEP]", "zebra"]
    none = find_vectors(VectorFile.open(tmp_path / "v.txt"), tokenizer, 0)
    assert not none.pieced_V.any()
    assert none.direct_V.sum() == 3


def test_a_token_spelled_as_the_vocabulary_spells_it_comes_first(tmp_path: Path) -> None:
    tokenizer = trained("bpe")
    the = next(i for i in range(tokenizer.vocab_size) if tokenizer.token_of(i) == "Ġthe")
    found = find_vectors(VectorFile.open(write(tmp_path / "v.txt", ["the 1 2", "Ġthe 3 4"])), tokenizer, 0)
    assert found.rows_VD[the].tolist() == [3, 4]


def test_a_capital_at_a_texts_beginning_is_the_word_in_lower_case(tmp_path: Path) -> None:
    """A byte-level vocabulary marks the space before a word: without it a word looks like a piece."""
    tokenizer = trained("bpe")
    name = next(t for i in range(tokenizer.vocab_size) if (t := tokenizer.token_of(i)) and t.isalpha() and t.istitle())
    found = find_vectors(VectorFile.open(write(tmp_path / "v.txt", [f"{name.lower()} 1 2 3"])), tokenizer, 0)
    assert row(tokenizer, found.rows_VD, name) == [1, 2, 3]
    both = [f"{name.lower()} 1 2 3", f"{name} 4 5 6"]
    found = find_vectors(VectorFile.open(write(tmp_path / "w.txt", both)), tokenizer, 0)
    assert row(tokenizer, found.rows_VD, name) == [4, 5, 6]


def test_the_first_of_a_repeated_word_counts_and_case_is_kept_where_both_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "v.txt", ["rome 1 1 1", "Rome 2 2 2", "cat 3 3 3", "cat 4 4 4"])
    tokenizer = pieces_tokenizer()
    found = find_vectors(VectorFile.open(path), tokenizer, 0)
    assert row(tokenizer, found.rows_VD, "Rome") == [2, 2, 2]
    assert row(tokenizer, found.rows_VD, "cat") == [3, 3, 3]
    assert found.num_repeated == 1


@pytest.mark.parametrize("ending", ["\n", " \n", "\r\n"])
@pytest.mark.parametrize("header", [["6 3"], []])
@pytest.mark.parametrize("packed", [False, True])
def test_all_layouts_of_a_file_say_the_same(tmp_path: Path, ending: str, header: list[str], packed: bool) -> None:
    path = write(tmp_path / "v.vec", [*header, *LINES], ending)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    file = VectorFile.open(path)
    assert file.dimensions == 3
    found = {word: file.numbers(line, values).tolist() for line, word, values in file.words()}
    assert list(found) == [line.split()[0] for line in LINES]
    assert found["walks"] == [0, 6, 0]
    assert file.num_words == 6


def test_words_may_hold_spaces(tmp_path: Path) -> None:
    file = VectorFile.open(write(tmp_path / "v.txt", ["of 1 2 3", ". . . 4 5 6", "at name@domain.com 7 8 9"]))
    assert [word for _, word, _ in file.words()] == ["of", ". . .", "at name@domain.com"]


def read_all(path: Path) -> None:
    file = VectorFile.open(path)
    for line, _, values in file.words():
        file.numbers(line, values)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["a 1 2 3"] * 16 + ["b 1 2"], "line 17 must hold a word and 3 numbers, as the lines before it; got 2 numbers"),
        (["a 1 2 3"] * 16 + ["b 1 2 3 4"], "line 17 must hold a word and 3 numbers, as the lines before it; got 4"),
        (["17 3"] + ["a 1 2 3"] * 15 + ["b 1"], "line 17 must hold a word and 3 numbers"),
        (["a 1 2 3", "b 1 x 3"], "line 2 must hold numbers; got 'x'"),
        (["a 1 2 3", "b 1 nan 3"], "line 2 must hold finite numbers; got 'nan'"),
        (["a 1 2 3", "b 1 1e999 3"], "line 2 must hold finite numbers; got '1e999'"),
        (["no numbers here"], "line 1 must hold a word and its numbers"),
        (["12 3"], "line 1 must be followed by the words"),
        ([], "empty"),
        (["a 1 2 3", "b\0\0\0"], "line 2 must be text; got binary data"),
    ],
)
def test_a_bad_file_is_told_in_one_line(tmp_path: Path, lines: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        read_all(write(tmp_path / "v.txt", lines))
    assert told in str(caught.value)
    assert "v.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    for lines in (LINES, [f"{len(LINES)} 3", *LINES]):
        path = write(tmp_path / "v.txt", lines)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        file = VectorFile.open(path)
        assert file.dimensions == 3
        assert next(word for _, word, _ in file.words()) == "cat"


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_makes_nothing_of_vectors_is_a_fault(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        Embeddings(path="v.txt", scale=scale)


def test_missing_packed_and_damaged_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must exist"):
        VectorFile.open(tmp_path / "none.txt")
    (tmp_path / "v.zip").write_bytes(b"PK\x03\x04" + bytes(20))
    with pytest.raises(UserError, match="zip archive; unpack it"):
        VectorFile.open(tmp_path / "v.zip")
    packed = gzip.compress("\n".join(f"w{i} {i} {i * i} 3" for i in range(5000)).encode())
    (tmp_path / "v.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match="could not be read"):
        read_all(tmp_path / "v.gz")
    with pytest.raises(UserError, match="could not be read"):
        VectorFile.open(tmp_path)


def test_a_header_that_promises_other_numbers_of_words_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_all(write(tmp_path / "v.vec", ["2000000 3", *LINES]))
    assert "promises 2,000,000 words, it holds 6" in caplog.text


def embedded(path: Path, tokenizer: Tokenizer, **settings: object) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    initial = torch.randn(tokenizer.vocab_size + 2, 3, generator=generator) * 0.02
    wanted = Embeddings.model_validate({"path": str(path), **settings})
    return embed(wanted, tokenizer, initial, generator, lambda: np.arange(tokenizer.vocab_size))


def test_the_embedding_has_the_models_spread_and_no_row_of_zeros(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tokenizer = pieces_tokenizer()
    path = write(tmp_path / "v.txt", LINES)
    rows = embedded(path, tokenizer)
    assert rows.shape == (tokenizer.vocab_size + 2, 3)
    known = rows[2:8]
    assert known.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.3)
    ratio = known[0] / torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(ratio, ratio[0].expand(3)), "vectors keep their direction"
    assert (rows.abs().sum(1) > 0).all()
    assert torch.equal(rows, embedded(path, tokenizer))
    assert torch.equal(embedded(path, tokenizer, scale=2.0)[2], torch.tensor([2.0, 4.0, 6.0]))
    line = next(r.getMessage() for r in caplog.records if r.getMessage().startswith("embeddings:"))
    assert "3 of 7 tokens are its words, 3 more" in line
    assert "85.7 % of the vocabulary" in line
    assert f"{100 * 27 / 35:.1f} % of the training tokens" in line
    assert "'zebra'" in line


def test_vectors_that_cannot_serve_are_told(tmp_path: Path) -> None:
    tokenizer = pieces_tokenizer()
    with pytest.raises(
        UserError, match=r"as wide as the model, 3; got 2 numbers a word .*; set the model's width to 2"
    ):
        embedded(write(tmp_path / "a.txt", ["cat 1 2"]), tokenizer)
    with pytest.raises(UserError, match=r"none of .* 1 words"):
        embedded(write(tmp_path / "b.txt", ["katze 1 2 3"]), tokenizer)
    with pytest.raises(UserError, match="must not all be zero"):
        embedded(write(tmp_path / "c.txt", ["cat 0 0 0"]), tokenizer)


def test_new_rows_have_the_mean_and_covariance_of_the_given_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = torch.tensor([[1.0, 0.5], [0.0, 2.0]])
    given = torch.randn(500, 2, generator=generator) @ shape + 3
    new = rows_like(given, 20_000, generator)
    torch.testing.assert_close(new.mean(0), given.mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(new.T), torch.cov(given.T), atol=0.12, rtol=0)
    assert torch.equal(rows_like(given[:1], 3, generator), given[:1].expand(3, 2))


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "char"])
def test_every_ordinary_token_is_a_word_or_a_piece(kind: str) -> None:
    tokenizer = trained(kind)
    words, pieces = words_of(tokenizer)
    assert not words.keys() & pieces.keys()
    assert words.keys() | pieces.keys() == set(range(tokenizer.vocab_size)) - set(tokenizer.special_ids)
    spelled = {text: i for i, text in words.items()}
    if kind != "char":
        assert "the" in spelled
        assert tokenizer.token_of(spelled["the"]) in ("Ġthe", "▁the", "the")
        assert pieces
