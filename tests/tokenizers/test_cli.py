"""The commands, from raw text and from a corpus folder."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foundling.cli.tokenizer import app
from foundling.core.errors import UserError
from foundling.core.files import read_json
from foundling.corpus.build import Config, build_corpus, preset
from foundling.tokenizers.base import load_tokenizer
from tests.tokenizers.texts import texts


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps({"text": text * 4}) + "\n" for text in texts(100)), encoding="utf-8")
    return path


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_train_from_raw_text_and_report(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "t"
    _run("train", raw, "--kind", "wordpiece", "--vocab-size", "0.2K", "--out", out, "lowercase=false")
    tokenizer = load_tokenizer(out)
    assert (tokenizer.kind, tokenizer.vocab_size) == ("wordpiece", 200)
    assert tokenizer.encode("The") != tokenizer.encode("the")
    assert read_json(out / "report.json")["total"]["num_texts"] > 0
    assert [path.name for path in out.parent.iterdir()] == ["t"]
    assert "round trip" in _run("report", out, "--text", raw)


def test_a_corpus_folder_gives_what_its_raw_text_gives(raw: Path, tmp_path: Path) -> None:
    build_corpus([raw], tmp_path / "corpus", Config(steps=preset("plain")))
    _run("train", tmp_path / "corpus", "--vocab-size", 400, "--out", tmp_path / "a")
    _run("train", raw, "--vocab-size", 400, "--out", tmp_path / "b")
    assert load_tokenizer(tmp_path / "a").sha256 == load_tokenizer(tmp_path / "b").sha256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "bep"], "did you mean 'bpe'"),
        (["vocabsize=3"], "did you mean 'vocab_size'"),
        (["--vocab-size", "many"], "expected a number such as"),
        (["--vocab-size", "9M"], "yields"),
        (["special_tokens.end=x"], "special_tokens"),
    ],
)
def test_bad_input_is_one_clear_error(raw: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _run("train", raw, "--out", tmp_path / "made" / "t", *arguments)
    assert not (tmp_path / "made").exists() or not list((tmp_path / "made").iterdir())


def test_no_text_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be named"):
        _run("train", "min_count=3", "--out", tmp_path / "t")
