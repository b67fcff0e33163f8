"""`load` of an encoder-decoder, and the commands on it."""

import json
from pathlib import Path

import pytest
import torch

from foundling.cli.main import main
from foundling.core.errors import UserError
from foundling.models.hub import save_model
from foundling.serve.load import load
from foundling.serve.source_model import SourceModel
from foundling.tokenizers.base import Tokenizer
from tests.decoding.test_beam import small_seq2seq
from tests.serve.conftest import small_model


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_model(small_seq2seq(300), tmp_path / "run" / "model", tokenizer=tokenizer)
    return tmp_path / "run"


def test_a_prompt_is_the_source(folder: Path) -> None:
    model = load(folder)
    assert isinstance(model, SourceModel)
    eos = model.tokenizer.eos_id
    assert model.start_id == model.end_id == eos
    assert model.prompt_ids("The sea") == [*model.tokenizer.encode("The sea"), eos]
    assert model.prompt_ids("") == [eos]
    one = model.generate("The old man", max_tokens=9, temperature=0)
    assert one == "".join(model.stream("The old man", max_tokens=9, temperature=0))
    assert one != model.generate("The sea", max_tokens=9, temperature=0)
    assert model.generate("The", max_tokens=9, seed=3) == model.generate("The", max_tokens=9, seed=3)
    ((greedy,),) = model.best(["The old man"], max_tokens=9, beams=1)
    assert greedy[0] == one
    best = model.best(["The old man", "The sea"], max_tokens=9, beams=4, num_best=3)
    assert [len(texts) for texts in best] == [3, 3]
    assert all(texts[0][1] >= texts[1][1] >= texts[2][1] for texts in best)


def test_it_stops_at_the_ids_that_the_folder_names(folder: Path) -> None:
    path = folder / "model" / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [9]}))
    assert load(folder).stop_ids == {9, load(folder).tokenizer.eos_id}


def test_generate_writes_the_target(folder: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["generate", str(folder), "--prompt", "The sea", "--max-tokens", "6", "--temperature", "0"]) == 0
    wanted = load(folder).generate("The sea", max_tokens=6, temperature=0)
    assert capfdbinary.readouterr().out == wanted.encode() + b"\n"


def test_beams_from_the_command_line(
    folder: Path, tokenizer: Tokenizer, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    save_model(small_model(), folder.parent / "gpt", tokenizer=tokenizer)
    for path in (folder, folder.parent / "gpt"):
        arguments = ["generate", str(path), "--prompt", "The old man", "--max-tokens", "8"]
        assert main([*arguments, "--beams", "1"]) == 0
        greedy = load(path).generate("The old man", max_tokens=8, temperature=0)
        assert capfdbinary.readouterr().out == greedy.encode() + b"\n"
        assert main([*arguments, "--beams", "4", "--length-penalty", "0"]) == 0
        ((best, *_),) = load(path).best(["The old man"], max_tokens=8, beams=4, length_penalty=0.0)
        assert capfdbinary.readouterr().out == best[0].encode() + b"\n"
        assert main([*arguments, "--beams", "4", "--top-k", "3"]) == 2
        assert b"--beams searches and does not draw; got top_k" in capfdbinary.readouterr().err
        assert main([*arguments, "--beams", "4", "--seed", "1"]) == 2
        assert main([*arguments, "--beams", "0"]) == 2


def test_what_is_of_texts_alone_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("The old man went to the sea. " * 20)
    assert main(["evaluate", str(folder), "--data", str(tmp_path / "text.txt"), "row_length=8"]) == 2
    assert "predicts text in order" in capsys.readouterr().err
    model = load(folder)
    with pytest.raises(UserError, match="at most 16 tokens"):
        model.generate("The old man went to the sea and never came back at all, for the sea was deep.")
    with pytest.raises(UserError, match=r"got \['num_samples'\]"):
        model.stream("The", num_samples=2)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tokenizer: Tokenizer) -> None:
    with torch.device("meta"), pytest.raises(UserError, match="at most as many; got 300"):
        SourceModel(small_seq2seq(299), tokenizer)
