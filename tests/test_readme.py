"""Every command and every code block of the two READMEs, run as a reader would, on a small folder of text."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import foundling
from foundling.cli import demo
from foundling.cli.main import main
from tests.tiny import write_texts

ROOT = Path(__file__).parent.parent
SMALL = {"train.length": "6 steps", "train.batch": "4 examples", "train.sequence_length": 64, "train.compile": False}


def blocks(language: str, name: str = "README.md") -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [code for found, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if found == language]


def without_comments(code: str) -> str:
    return re.sub(r" *#.*", "", code)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line]
    return [shlex.split(line.replace("YOUR_FOLDER", "texts")) for line in lines]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipes and some texts, where a reader stands."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    write_texts(tmp_path / "texts", 400)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_both_languages_show_the_same_commands_and_pictures() -> None:
    english, chinese = (ROOT / name for name in ("README.md", "README.zh.md"))
    for language in ("sh", "python", ""):
        shown = [[without_comments(code) for code in blocks(language, path.name)] for path in (english, chinese)]
        assert shown[0] == shown[1]
        assert shown[0]
    pictures = [re.findall(r"!\[.*?\]\((.*?)\)", path.read_text(encoding="utf-8")) for path in (english, chinese)]
    assert pictures[0] == pictures[1]
    assert all((ROOT / picture).is_file() for picture in pictures[0])


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    named = [command[1] for command in commands() if command[0] == "make"]
    assert named == ["demo", "test"]
    assert set(named) <= set(targets)


def test_commands_run_in_their_order(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_TOKENS_OF_TWO_CORES", {"bf16": 20_000, "fp32": 20_000})
    monkeypatch.setattr(demo, "_RECIPE", demo._RECIPE | {"tokenizer": {"kind": "bpe", "vocab_size": 400}})
    ran = 0
    for command in commands():
        if command[0] != ".venv/bin/foundling":
            continue
        arguments = ["400" if argument == "4K" else argument for argument in command[1:]]
        if arguments[0] == "pretrain":
            arguments += [f"{key}={value}" for key, value in SMALL.items()]
        assert main(arguments) == 0, command
        ran += 1
    assert ran == 7
    assert {"bits_per_byte", "compression", "samples"} <= set(foundling.Run(reader / "runs" / "mine").summary)
    assert (reader / "runs" / "mini" / "report.html").is_file()
    assert (reader / "scores.json").is_file()


def test_torchrun_line_is_one_that_this_package_answers() -> None:
    (line,) = [command for command in commands() if command[0] == "torchrun"]
    assert line[3:6] == ["-m", "foundling", "pretrain"]  # two processes are run by tests/train/test_processes.py


def test_recipe_shown_is_the_recipe_shipped(reader: Path) -> None:
    import yaml

    from foundling.train.recipe import read_recipe, recipe_from

    (shown,) = blocks("yaml")
    shipped = read_recipe("recipes/gpt-mini.yaml", ("corpus.train=corpora/mine",))
    assert recipe_from(yaml.safe_load(shown)) == shipped


def test_faults_shown_are_the_faults_told(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = [block for block in blocks("") if block.startswith("foundling: recipe.yaml")]
    text = (ROOT / "recipes" / "gpt-mini.yaml").read_text(encoding="utf-8").replace("batch:", "batch_size:")
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    assert main(["pretrain", "recipe.yaml", "objective=casual"]) == 2
    assert capsys.readouterr().err == shown


def test_python_shown_runs(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["corpus", "build", "texts", "--out", "corpora/mine"]) == 0
    whole = foundling.pretrain

    def small(recipe: str, **overrides: Any) -> foundling.Run:
        return whole(recipe, **overrides, **SMALL, **{"tokenizer.vocab_size": 400})

    monkeypatch.setattr(foundling, "pretrain", small, raising=False)
    (shown,) = blocks("python")
    found: dict[str, Any] = {}
    exec(shown, found)
    assert found["logits"].shape[1] == 400
    assert found["run"].summary["finished"]
