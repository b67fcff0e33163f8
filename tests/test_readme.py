"""Every command and every code block of the two READMEs, run as a reader would, on a small folder of text."""

import gzip
import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import transformers

import foundling
from foundling.cli import demo
from foundling.cli.main import main
from foundling.core.config import read_yaml, validate
from foundling.core.registry import part_names
from foundling.corpus.folder import open_corpus
from foundling.train.finetune_recipe import FinetuneRecipe
from tests.tasks.small import base_folder
from tests.tiny import sentences, write_texts

ROOT = Path(__file__).parent.parent
SMALL = {"train.length": "6 steps", "train.batch": "4 examples", "train.sequence_length": 64, "train.compile": False}
VOCABULARIES = {"bert": 150, "modernbert": 150, "word2vec": None}
"""Tokens that the small text fills; 400 for those that are not named, None: of the recipe's own making."""


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


def write_readers_files(folder: Path) -> None:
    """What the commands name and a reader has: a crawl, more of it, test questions, examples, pairs, a model."""
    texts = sentences(60, seed=1)
    page = "<html><body><p>{}</p><p>{}</p></body></html>"
    (folder / "crawl").mkdir()
    for i in range(20):
        (folder / "crawl" / f"{i:02d}.html").write_text(page.format(texts[i], texts[i + 20]), encoding="utf-8")
    # A crawler's own fragments, and four texts twice.
    fragments = [f"<p>{text}</p>" for text in texts[:40]] + texts[40:44] + texts[40:44]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in fragments)
    (folder / "crawl" / "pages.jsonl").write_text(rows, encoding="utf-8")
    with gzip.open("more.jsonl.gz", "wt", encoding="utf-8") as more:
        more.writelines(json.dumps({"text": text}) + "\n" for text in texts[30:])
    (folder / "benchmark.jsonl").write_text(json.dumps({"question": texts[3]}), encoding="utf-8")
    write_texts(folder / "books", 30, seed=2)
    (folder / "spam").mkdir()
    for i in range(30):
        (folder / "spam" / f"{i}.txt").write_text(f"buy cheap pills now, click here, offer {i} of the casino! " * 4)
    good, bad = "the old sailor carried seven boxes", "the sailor old seven carried boxes"
    pair = {"sentence_good": good, "sentence_bad": bad, "linguistics_term": "word_order"}
    (folder / "pairs.jsonl").write_text(json.dumps(pair), encoding="utf-8")
    write_task_files()
    assert main(["tokenizer", "train", "books", "--kind", "bpe", "--vocab-size", "280", "--out", "HF_FOLDER"]) == 0
    config = transformers.GPT2Config(
        vocab_size=280, n_positions=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder / "HF_FOLDER")


def write_task_files() -> None:
    """Examples of every task."""
    texts = sentences(12, seed=3)
    answer = {"text": "sailor", "answer_start": 8}
    question = {"id": "q", "question": "who carried boxes", "answers": [answer]}
    paragraph = {"context": "the old sailor carried seven boxes", "qas": [question]}
    files: dict[str, Any] = {
        "reviews.jsonl": [{"text": text, "label": "good" if i % 2 else "bad"} for i, text in enumerate(texts)],
        "entities.jsonl": [{"tokens": ["old", "sailor"], "tags": ["O", f"B-{'PL'[i % 2]}"]} for i in range(8)],
        "relations.jsonl": [
            {"text": "the <e1>sailor</e1> carried <e2>boxes</e2>", "label": f"Carries(e{i},e{3 - i})"} for i in (1, 2)
        ]
        * 4,
        "pairs-de.jsonl": [{"source": text, "target": text[::-1]} for text in texts],
        "summaries.jsonl": [{"document": text, "summary": text[:20]} for text in texts],
        "chats.jsonl": [
            {"messages": [{"role": "user", "content": "old"}, {"role": "assistant", "content": text[:20]}]}
            for text in texts
        ],
    }
    files["reviews-dev.jsonl"] = files["reviews.jsonl"][:6]
    for name, rows in files.items():
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("questions.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": [paragraph] * 4}]}))


def small(recipe: str, given: list[str]) -> list[str]:
    """Overrides that make a shipped recipe small."""
    if Path(recipe).stem.startswith("tune-"):
        inner = json.dumps(
            ["corpus.train=corpora/mine", "tokenizer.vocab_size=400", *(f"{k}={v}" for k, v in SMALL.items())]
        )
        return [f"settings={inner}", "trials=2", "halving=null", "seeds=2"]
    if "task" in (shipped := read_yaml(Path(recipe))):
        changes = ["train.length=2 steps", "train.batch=4 examples", "train.compile=false"]
        if "tokenizer" in shipped:
            changes += ["tokenizer.vocab_size=300", "model.size={layers: 1, width: 32, heads: 2}"]
        kind = shipped["task"]["kind"]
        return changes + {
            "summarization": ["task.max_target=8"],
            "dialogue": ["task.max_answer=8"],
            "relation": ["task.markers=[a, a, e, e]"],
        }.get(kind, [])
    family = Path(recipe).stem.removesuffix("-mini")
    changes: dict[str, Any] = dict(SMALL)
    if "phases" in read_yaml(Path(recipe)).get("train", {}):
        changes["train.phases"] = []
    vocabulary = VOCABULARIES.get(family, 400)
    if vocabulary and not any(word.startswith("tokenizer") for word in given):
        changes["tokenizer.vocab_size"] = vocabulary
    return [f"{key}={value}" for key, value in changes.items()]


def test_both_languages_show_the_same_commands_and_pictures() -> None:
    english, chinese = (ROOT / name for name in ("README.md", "README.zh.md"))
    for language in ("sh", "python", ""):
        shown = [[without_comments(code) for code in blocks(language, path.name)] for path in (english, chinese)]
        assert shown[0] == shown[1]
        assert shown[0]
    pictures = [re.findall(r"!\[.*?\]\((.*?)\)", path.read_text(encoding="utf-8")) for path in (english, chinese)]
    assert pictures[0] == pictures[1]
    assert all((ROOT / picture).is_file() for picture in pictures[0])


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_every_training_method_is_named(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    kinds = [
        kind for folder in ("optim", "optim.schedules", "optim.averages", "optim.losses") for kind in part_names(folder)
    ]
    assert len(kinds) >= 15
    assert [kind for kind in kinds if f"`{kind}`" not in text and f"kind: {kind}" not in text] == []


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    named = [command[1] for command in commands() if command[0] == "make"]
    assert named == ["demo", "test"]
    assert set(named) <= set(targets)


@pytest.mark.slow
def test_commands_run_in_their_order(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_tokens_of_two_cores", lambda precision: 20_000)
    monkeypatch.setattr(demo, "_RECIPE", demo._RECIPE | {"tokenizer": {"kind": "bpe", "vocab_size": 400}})
    write_readers_files(reader)
    verbs = Counter()
    for command in commands():
        if command[0] != ".venv/bin/foundling":
            continue
        arguments = ["400" if argument == "4K" else argument for argument in command[1:]]
        recipes = [word for word in arguments if word.startswith("recipes/")]
        arguments += small(recipes[0], arguments) if recipes else []
        if "pseudo-perplexity" in arguments:
            arguments.append("tokens=200")
        assert main(arguments) == 0, command
        verbs[arguments[0]] += 1
    assert verbs == {
        "demo": 1, "corpus": 11, "tokenizer": 2, "data": 1, "pretrain": 11, "generate": 3, "evaluate": 7,
        "finetune": 8, "predict": 1, "tune": 1,
    }  # fmt: skip
    assert {"bits_per_byte", "compression", "samples"} <= set(foundling.Run(reader / "runs" / "mine").summary)
    assert (reader / "runs" / "mini" / "report.html").is_file()
    assert (reader / "scores.json").is_file()
    assert (reader / "pairs.json").is_file()
    assert not (reader / "runs" / "gpt-mini" / "metrics.jsonl").exists()  # --dry-run trains nothing


def test_corpora_shown_differ_as_they_say(reader: Path) -> None:
    write_readers_files(reader)
    built = {}
    for command in commands():
        if command[1:3] not in (["corpus", "build"], ["corpus", "classifier"]) or "texts" in command:
            continue
        assert main(command[1:]) == 0, command
        out = command[command.index("--out") + 1]
        if out.startswith("corpora") and "--dry-run" not in command:
            built[Path(out).name] = open_corpus(Path(out)).manifest["counts"]["steps"]
    dropped = {name: {reason for step in steps for reason in step["dropped"]} for name, steps in built.items()}
    assert "duplicate" in dropped["clean"]
    assert "too_few_words" in dropped["strict"] - dropped["clean"]
    assert "near_duplicate_elsewhere" in dropped["more"]
    assert "contaminated" in dropped["fair"]
    assert "html" in [step["step"] for step in built["clean"] if step["num_changed"]]


def test_torchrun_line_is_one_that_this_package_answers() -> None:
    (line,) = [command for command in commands() if command[0] == "torchrun"]
    assert line[3:6] == ["-m", "foundling", "pretrain"]  # two processes are run by tests/train/test_processes.py


def test_recipe_shown_is_the_recipe_shipped(reader: Path) -> None:
    import yaml

    from foundling.train.recipe import read_recipe, recipe_from

    shown, mixture, tuning = (yaml.safe_load(block) for block in blocks("yaml"))
    assert validate(FinetuneRecipe, tuning, "the README's").task.kind == "classification"
    shipped = read_recipe("recipes/gpt-mini.yaml", ("corpus.train=corpora/mine",))
    assert recipe_from(shown) == shipped
    for name in ("mine", "clean"):
        write_texts(reader / name, 60, seed=len(name))
        assert main(["corpus", "build", name, "--out", f"corpora/{name}"]) == 0
    Path("mixed.yaml").write_text(yaml.safe_dump(shown | mixture), encoding="utf-8")
    assert main(["pretrain", "mixed.yaml", *small("mixed.yaml", [])]) == 0
    plain = ["out=runs/alike", "corpus.train=[corpora/mine, corpora/clean]", "corpus.changes=[]"]
    alike = ["corpus.mix=source", "corpus.temperature=2"]
    assert main(["pretrain", "mixed.yaml", *plain, *alike, *small("mixed.yaml", [])]) == 0


def test_faults_shown_are_the_faults_told(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = [block for block in blocks("") if block.startswith("foundling: recipe.yaml")]
    text = (ROOT / "recipes" / "gpt-mini.yaml").read_text(encoding="utf-8").replace("batch:", "batch_size:")
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    assert main(["pretrain", "recipe.yaml", "objective=casual"]) == 2
    assert capsys.readouterr().err == shown


def test_python_shown_runs(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["corpus", "build", "texts", "--out", "corpora/mine"]) == 0
    whole = foundling.pretrain

    def smaller(recipe: str, **overrides: Any) -> foundling.Run:
        return whole(recipe, **overrides, **SMALL, **{"tokenizer.vocab_size": 400})

    tuned = foundling.finetune

    def shorter(recipe: str, **overrides: Any) -> foundling.Run:
        changes = {"train.length": "2 steps", "train.batch": "4 examples", "task.dev": [], "train.compile": False}
        return tuned(recipe, **overrides, **changes)

    base_folder(reader / "runs", "bert")
    write_task_files()
    monkeypatch.setattr(foundling, "finetune", shorter, raising=False)
    monkeypatch.setattr(foundling, "pretrain", smaller, raising=False)
    (shown,) = blocks("python")
    found: dict[str, Any] = {}
    exec(shown, found)
    assert found["logits"].shape[1] == 400
    assert found["run"].summary["finished"]
