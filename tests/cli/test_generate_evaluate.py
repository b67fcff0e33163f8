"""The verbs `generate` and `evaluate` as a person types them."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from foundling.cli.main import main
from foundling.models.hub import save_model
from foundling.serve.load import load
from foundling.tokenizers.bpe import Config as BpeConfig
from tests.serve.conftest import TEXT, small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tokenizer = BpeConfig(kind="bpe", vocab_size=300).build().train([TEXT])
    save_model(small_model(), folder / "model", tokenizer=tokenizer)
    return folder


def test_generate_writes_the_text_and_nothing_else(model: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    settings = ["--max-tokens", "20", "--seed", "3", "--temperature", "0.9", "--top-k", "50", "--top-p", "0.9"]
    expected = load(model).generate("The sea", max_tokens=20, seed=3, temperature=0.9, top_k=50, top_p=0.9)
    for stream in ([], ["--no-stream"]):
        assert main(["generate", str(model), "--prompt", "The sea", *settings, *stream]) == 0
        assert capfdbinary.readouterr().out == expected.encode() + b"\n"


def test_the_prompt_may_come_from_standard_input(
    model: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["generate", str(model), "--max-tokens", "10", "--temperature", "0", "--prompt"]
    assert main([*arguments, "Öl"]) == 0
    expected = capfdbinary.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Öl".encode())))
    assert main([*arguments, "-"]) == 0
    assert capfdbinary.readouterr().out == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert main([*arguments, "-"]) == 2
    assert b"the prompt must be UTF-8" in capfdbinary.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["generate", "MODEL", "--prompt", "x", "--top-p", "3"], "top_p"),
        (["generate", "MODEL", "--prompt", "x", "--max-tokens", "0"], "max_tokens"),
        (["generate", "MODEL", "--prompt", "x " * 100], "at most 40 tokens"),
        (["generate", "MODEL", "--prompt", "caf\udce9"], "a text must hold whole characters"),
        (["generate", "MODEL", "--prompt", "x", "--temperature", "1e-40"], "temperature must be 0, or"),
        (["generate", "MODEL", "--prompt", "x", "--repetition-penalty", "1e-40"], "repetition_penalty must lie"),
        (["generate", "MODEL", "--prompt", "x", "--beams", "2", "--length-penalty", "200"], "length_penalty must lie"),
        (["generate", "MODEL", "--prompt", "x", "--seed", "9" * 20], "seed must be a whole number of 64 bits"),
        (["generate", "nowhere", "--prompt", "x"], "no folder"),
        (["evaluate", "MODEL", "--data", "TEXT", "--suite", "perplexitty"], "did you mean 'perplexity'"),
        (["evaluate", "MODEL", "--data", "TEXT", "rowlength=8"], "did you mean 'row_length'"),
        (["evaluate", "MODEL", "--data", "TEXT", "row_length=1K"], "row_length must be at most 40"),
        (["evaluate", "MODEL", "--data", "nowhere.txt"], "must exist"),
        (["evaluate", "MODEL", "--data", "TEXT", "--json", "nowhere/x.json"], "folder that exists"),
        (
            ["evaluate", "MODEL", "MODEL", "--data", "TEXT", "--compare"],
            "must be of a suite that measures examples one",
        ),
        (["evaluate", "MODEL", "--data", "TEXT", "--order", "3"], "add --baseline ngram"),
        (["evaluate", "MODEL", "--data", "TEXT", "--baseline", "ngram", "--baseline-data", "gone.txt"], "must exist"),
        (["generate", "MODEL", "--prompt", "x", "--length-penalty", "2"], "add --beams N"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_status_2(
    model: Path, arguments: list[str], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    names = {"MODEL": str(model), "TEXT": str(tmp_path / "a.txt")}
    assert main([names.get(argument, argument) for argument in arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert told in captured.err
    assert "Value error" not in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_evaluate_shows_a_table_and_writes_the_figures(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": "Why, Öl!"}).encode()))
    data = ["--data", str(tmp_path / "a.txt"), "--data", str(tmp_path / "b.jsonl.gz")]
    figures = tmp_path / "figures.json"
    assert main(["evaluate", str(model), "--suite", "perplexity", *data, "--json", str(figures), "context=10"]) == 0
    table = capfd.readouterr().out
    found = json.loads(figures.read_text())
    lm = load(model)
    assert found["suite"] == "perplexity"
    assert found["settings"] == {"row_length": 40, "context": 10, "split": "valid"}
    assert found["by_source"].keys() == {"a", "b"}
    assert found["bytes"] == len(TEXT.encode()) + len("Why, Öl!".encode())
    assert found["tokens"] == len(lm.tokenizer.encode(TEXT)) + len(lm.tokenizer.encode("Why, Öl!")) + 2
    assert [line.split()[0] for line in table.splitlines() if line.strip(" ─━")] == ["source", "a", "b", "all"]
    assert f"{found['bits_per_byte']:.4f}" in table


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_help_ends_with_an_example_and_needs_no_torch(verb: str) -> None:
    code = (
        "import sys; from foundling.cli.main import main; status = main([sys.argv[1], '--help']); "
        "assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"foundling {verb} runs/demo" in done.stdout
