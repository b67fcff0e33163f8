"""Texts come from corpus folders and files alike, and what cannot be used is told."""

import gzip
import json
import logging
from pathlib import Path

import pytest

from foundling.core.errors import UserError
from foundling.corpus.build import Config, build_corpus, preset
from foundling.evaluation.texts import read_texts


def test_files_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    lines = [json.dumps({"text": "Öl"}), json.dumps({"text": ""}), json.dumps({"text": "three"})]
    (tmp_path / "b.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines[0].encode()))
    files = [tmp_path / name for name in ("a.txt", "b.jsonl", "c.jsonl.gz")]
    assert list(read_texts(files, split="valid")) == [("a", "one\ntwo\n"), ("b", "Öl"), ("b", "three"), ("c", "Öl")]
    assert {text for _, text in read_texts([tmp_path], split="valid")} == {"one\ntwo\n", "Öl", "three"}


def test_a_field_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps({"head": "no", "tale": "yes"}))
    with pytest.raises(UserError, match="text_field=KEY"):
        list(read_texts([tmp_path / "b.jsonl"], split="valid"))
    assert list(read_texts([tmp_path / "b.jsonl"], split="valid", text_field="tale")) == [("b", "yes")]


def test_a_corpus_folder_gives_its_split(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"document number {i} of the corpus, long enough to be kept " * 3}) for i in range(60)]
    (tmp_path / "news.jsonl").write_text("\n".join(lines))
    corpus = build_corpus(
        [tmp_path / "news.jsonl"], tmp_path / "corpus", Config(valid_fraction=0.2, workers=1, steps=preset("plain"))
    )
    valid = list(read_texts([tmp_path / "corpus"], split="valid"))
    assert [text for _, text in valid] == [document.text for document in corpus.documents("valid")]
    assert {source for source, _ in valid} == {"news"}
    assert len(valid) < 30 < len(list(read_texts([tmp_path / "corpus"], split="train")))


def test_what_cannot_be_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="must exist"):
        read_texts([tmp_path / "nowhere.txt"], split="valid")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="files of a known kind"):
        read_texts([tmp_path / "empty"], split="valid")
    (tmp_path / "a.txt").write_bytes(b"good \xff text")
    (tmp_path / "b.txt").write_bytes(b"\x00\x01" * 50)
    with caplog.at_level(logging.WARNING, "foundling"):
        assert [text for _, text in read_texts([tmp_path / "a.txt", tmp_path / "b.txt"], split="valid")] == [
            "good \N{REPLACEMENT CHARACTER} text"
        ]
    assert "a.txt: 1 bytes that are not UTF-8" in caplog.text
    assert "b.txt: 1 files left out: not text" in caplog.text
