"""Bad input: exit status 2, one clear line on standard error, no traceback, nothing half-written."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling.cli.main import VERBS, main
from foundling.models.hub import save_model
from foundling.train.pretrain import pretrain
from foundling.train.recipe import recipe_from
from foundling.train.state import checkpoints
from tests.tiny import tiny_model, write_texts

Data = Callable[..., dict[str, Any]]


@pytest.fixture
def fails(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that must fail with status 2; what it says, without the news of what went well before."""

    def run(*arguments: str, faults: int = 1) -> str:
        capfd.readouterr()
        assert main(list(arguments)) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert "Traceback" not in err
        lines = err.rstrip("\n").splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("foundling: "))
        told = lines[at:]
        assert len(told) == (1 if faults == 1 else 1 + faults), err
        return "\n".join(told)

    return run


@pytest.fixture
def recipe(tiny_data: Data, tmp_path: Path) -> Callable[..., str]:
    """A recipe file; `out` is tmp_path / "run"."""

    def write(**changes: Any) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(tiny_data(**changes)), encoding="utf-8")
        return str(path)

    return write


def artefacts_are_whole(folder: Path) -> bool:
    """Nothing half-written: no temporary names, and each folder has its manifest."""
    if not folder.exists():
        return True
    half = list(folder.rglob(".*"))
    whole = all((p / "manifest.json").exists() for p in folder.iterdir() if p.is_dir())
    return not half and whole


def test_no_recipe_file(fails: Callable[..., str], tmp_path: Path) -> None:
    said = fails("pretrain", str(tmp_path / "none.yaml"))
    assert said == f"foundling: the recipe must be a file that exists; got {tmp_path / 'none.yaml'}"


@pytest.mark.parametrize("text", ["name: [unclosed", "- a list", "just words", "\x00", ""])
def test_a_recipe_that_is_no_mapping(fails: Callable[..., str], tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    said = fails("pretrain", str(tmp_path / "r.yaml"))
    assert "r.yaml must " in said


def test_a_recipe_that_is_no_text(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00name")
    assert "could not be read" in fails("pretrain", str(tmp_path / "r.yaml"))
    assert "could not be read" in fails("pretrain", str(tmp_path))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.lenght=5 steps", "train.lenght: unknown key; did you mean 'length'?"),
        ("train.clip=much", "train.clip: "),
        ("train.log_every=0", "train.log_every: "),
        ("train.clip=yes", "train.clip: "),
        ("train.log_every=true", "train.log_every: "),
        ("optimizer.lr=-1", "lr: "),
        ("optimizer.weight_decay=-0.1", "weight_decay: "),
        ("evaluate.every=0", "evaluate.every: expected more than nothing; got 0"),
        ("checkpoint.every=0 steps", "checkpoint.every: expected more than nothing"),
        ("train.seed=1", "seed (at the top of the recipe)"),
        ("objective.kind=casual", "did you mean 'causal'?"),
        ("optimizer=adamww", "did you mean 'adamw'?"),
        ("track=[tensorbord]", "did you mean 'tensorboard'?"),
        ("no_equals_sign", "an override must look like dotted.key=value"),
        ("train.clip.deeper=1", "train.clip: "),
        ("train=5", "train: expected a mapping"),
        ("model.size.hidden_size=8", "model.size.width"),
        ("model.size.heads=0", "heads: Input should be greater than or equal to 1; got 0"),
        ("model.size.layers=-2", "layers: Input should be greater than or equal to 1; got -2"),
        ("model.size.init_std=-0.1", "init_std: Input should be greater than 0; got -0.1"),
    ],
)
def test_one_fault_in_a_recipe(
    fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path, override: str, said: str
) -> None:
    assert said in fails("pretrain", recipe(), override)
    assert not (tmp_path / "run").exists()


def test_a_key_that_comes_twice(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: a\ntrain: {batch: 1}\nmodel: {}\ntrain: {clip: 1}\n")
    assert "must be YAML; got line 4, column 1: train comes a second time" in fails(
        "pretrain", str(tmp_path / "r.yaml")
    )


def test_one_document_alone_cannot_be_held_back(
    fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path
) -> None:
    said = []
    for number in range(8):  # by its hash a document falls on either side
        (tmp_path / f"{number}.txt").write_text(f"{number} " + "some words of a book " * 3000)
        said.append(
            fails("pretrain", recipe(), f"corpus.train={tmp_path / f'{number}.txt'}", f"out={tmp_path / 'run'}")
        )
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    for line in said:
        assert "corpus.valid a path" in line


def test_two_faults_at_once(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    said = fails("pretrain", recipe(), "train.clip=much", "seeed=1", faults=2)
    assert "2 faults" in said
    assert "train.clip" in said
    assert "did you mean 'seed'?" in said
    assert not (tmp_path / "run").exists()


def test_an_unknown_verb(fails: Callable[..., str]) -> None:
    assert "did you mean 'pretrain'?" in fails("pretrian", "x.yaml")


def test_an_empty_folder_as_corpus(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = fails("pretrain", recipe(), f"corpus.train={tmp_path / 'empty'}")
    assert "empty" in said
    assert not list((tmp_path / "run").glob("**/*"))


def test_a_corpus_that_is_not_there(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    assert "nowhere" in fails("pretrain", recipe(), f"corpus.train={tmp_path / 'nowhere'}")


@pytest.mark.parametrize("name", ["a.txt", "a.bin", "a.jsonl"])
def test_a_binary_file(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 40)
    said = fails("pretrain", recipe(), f"corpus.train={tmp_path / name}")
    assert name in said
    assert artefacts_are_whole(tmp_path / "run")


def test_fewer_tokens_than_a_batch(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    said = fails("pretrain", recipe(), "train.batch=10M tokens")
    assert "must fill one batch of 10,000,000 tokens; got " in said
    assert artefacts_are_whole(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_less_text_than_a_row(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    said = fails("pretrain", recipe(), "train.sequence_length=1M")
    assert "at least one row of 1000001 tokens" in said


def test_less_validation_text_than_a_row(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("only a few words of text\n")
    said = fails("pretrain", recipe(**{"corpus.valid": {"path": str(tmp_path / "short.txt")}}))
    assert "the validation text must fill one row" in said
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_vocabulary_too_large(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    said = fails("pretrain", recipe(tokenizer={"kind": "bpe", "vocab_size": 50_000}))
    assert "50000" in said or "50,000" in said
    assert not (tmp_path / "run" / "tokenizer").exists()
    assert artefacts_are_whole(tmp_path / "run")


def test_a_tokenizer_larger_than_the_model_it_starts_from(
    fails: Callable[..., str], tiny_data: Data, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """Of 400 tokens for a model of 399; told before anything is made of the text."""
    save_model(tiny_model("gpt", 399, max_positions=32), tmp_path / "model")
    shutil.copy(tiny_tokenizer / "tokenizer.json", tmp_path / "model")
    data = tiny_data(model={"from": str(tmp_path / "model")})
    for tokenizer in (None, {"path": str(tiny_tokenizer), "extend": True}):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump({**data, "tokenizer": tokenizer}))
        said = fails("pretrain", str(tmp_path / "r.yaml"))
        assert "the tokenizer must not have more tokens than the model; got 400 against 399" in said
        assert not (tmp_path / "run").exists()


def test_rows_longer_than_the_positions_of_the_model_they_start_from(
    fails: Callable[..., str], tiny_data: Data, tmp_path: Path
) -> None:
    first = pretrain(recipe_from(tiny_data("first", **{"train.length": "1 step"})))
    data = tiny_data(model={"from": str(first.folder)}, **{"train.sequence_length": 64})
    del data["tokenizer"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    assert "must fit the model's positions; got 64 against max_positions 32" in fails(
        "pretrain", str(tmp_path / "r.yaml")
    )


def test_a_store_made_with_another_tokenizer(tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path) -> None:
    """Inside a run folder the store is simply made again; one that is opened by name is refused."""
    from foundling.core.errors import UserError
    from foundling.corpus.folder import open_corpus
    from foundling.data.store import TokenStore, build_store
    from foundling.tokenizers.base import load_tokenizer

    build_store(open_corpus(tiny_corpus), load_tokenizer(tiny_tokenizer), tmp_path / "tokens")
    with pytest.raises(UserError, match="must have been made with the run's tokenizer"):
        TokenStore.open(tmp_path / "tokens", tokenizer_sha256="0" * 64)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_shard_is_named(
    fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path, damage: str
) -> None:
    path = recipe(**{"train.length": "1 step"})
    assert main(["pretrain", path]) == 0
    shard = tmp_path / "run" / "tokens-0" / "train-00000.bin"
    data = bytearray(shard.read_bytes())
    if damage == "truncated":
        del data[-10:]
    else:
        data[100] ^= 4
    shard.write_bytes(data)
    said = fails("pretrain", path, "--resume")
    assert str(shard) in said
    assert ("must have" if damage == "truncated" else "is damaged between bytes 0 and") in said


@pytest.mark.parametrize("name", ["state-*", "manifest.json"])
def test_a_checkpoint_with_a_missing_file(
    fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path, name: str
) -> None:
    path = recipe()
    assert main(["pretrain", path]) == 0
    lost = next(checkpoints(tmp_path / "run")[-1].glob(name))
    lost.unlink()
    said = fails("pretrain", path, "--resume")
    assert str(lost if name != "manifest.json" else lost.parent) in said
    assert "the newest checkpoint must be whole" in said


@pytest.mark.parametrize("arguments", [("generate", "MODEL", "--prompt", "x"), ("evaluate", "MODEL", "--data", "TEXT")])
def test_a_model_folder_of_an_unknown_family(
    fails: Callable[..., str], tiny_tokenizer: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    model, text = tmp_path / "model", tmp_path / "text.txt"
    shutil.copytree(tiny_tokenizer, model)
    (model / "config.json").write_text('{"model_type": "mamba", "architectures": ["MambaForCausalLM"]}')
    text.write_text("some text\n")
    filled = [{"MODEL": str(model), "TEXT": str(text)}.get(word, word) for word in arguments]
    assert "mamba" in fails(*filled).lower()
    filled[1] = str(tmp_path / "nowhere")
    assert "nowhere" in fails(*filled)


def test_resume_without_a_checkpoint(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    said = fails("pretrain", recipe(), "--resume")
    assert f"--resume needs a checkpoint; got none in {tmp_path / 'run'}; start without --resume" in said
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_exists(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    path = recipe(**{"train.length": "2 steps"})
    assert main(["pretrain", path]) == 0
    said = fails("pretrain", path)
    assert "holds a run already (step 2); add --resume" in said
    (tmp_path / "file").write_text("mine")
    assert "must be a folder" in fails("pretrain", path, f"out={tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "mine"


def test_resume_with_a_changed_recipe(fails: Callable[..., str], recipe: Callable[..., str]) -> None:
    path = recipe(**{"train.length": "2 steps"})
    assert main(["pretrain", path]) == 0
    said = fails("pretrain", path, "--resume", "train.clip=3")
    assert "what differs: train.clip: 1.0 -> 3.0; undo that" in said


def test_resume_with_changed_text(fails: Callable[..., str], recipe: Callable[..., str], tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts", 150)
    path = recipe(**{"train.length": "2 steps", "corpus.train": str(texts), "corpus.valid": {"fraction": 0.1}})
    assert main(["pretrain", path]) == 0
    (texts / "0000.txt").write_text("other words in the same place, some more of them\n")
    assert "what differs: inputs.texts: " in fails("pretrain", path, "--resume")


def test_a_dry_run_plans_and_trains_nothing(
    recipe: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", recipe(), "--dry-run"]) == 0
    assert "8 steps" in capfd.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not checkpoints(tmp_path / "run")


def test_missing_arguments_are_status_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain"]) == 2
    assert "Traceback" not in capfd.readouterr().err
    assert main(["pretrain", "x.yaml", "--no-such-option"]) == 2


def test_help_of_all_and_of_each_verb_ends_with_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capfd.readouterr().out
    assert text.rstrip().splitlines()[-1].startswith("example: foundling ")
    assert all(f"  {verb}" in text for verb in VERBS)
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        text = capfd.readouterr().out
        assert f"foundling {verb} " in text.lower().split("example:")[-1], verb


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from foundling.cli.main import main; assert main(['--help']) == 0; "
        "heavy = {'torch', 'daft', 'pyarrow', 'matplotlib', 'numpy', 'pydantic', 'tokenizers'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out.strip().count(".") == 2
    assert shutil.which("python3")


def test_paths_that_cannot_be_are_one_line(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words " * 50)
    (tmp_path / "file").write_text("")
    text = str(tmp_path / "a.txt")
    assert "file" in fails("tokenizer", "train", text, "--out", str(tmp_path / "file" / "sub" / "t"))
    many = "extra_tokens=[" + ", ".join(f"'<|extra_{n}|>'" for n in range(40)) + "]"
    assert "vocab_size" in fails("tokenizer", "train", text, many, "--vocab-size", "10", "--out", str(tmp_path / "t"))
    for name in ("one", "two"):
        assert main(["corpus", "build", text, "--out", str(tmp_path / name), "steps=plain", "valid_fraction=0"]) == 0
    told = fails("tokenizer", "train", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "t"))
    assert "one corpus folder may be named" in told


def test_the_demo_takes_nobody_elses_folder(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "mine.txt").write_text("mine")
    assert "which stays as it is" in fails("demo", "--out", str(tmp_path))
    assert (tmp_path / "text" / "mine.txt").read_text() == "mine"
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "manifest.json").write_text("{}")
    for given in ([], ["--text", str(tmp_path / "text")]):
        assert "must be new, or a demo's folder" in fails("demo", *given, "--out", str(tmp_path / "run"))
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["manifest.json", "model"]
