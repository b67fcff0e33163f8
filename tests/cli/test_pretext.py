"""`evaluate --suite pretext`: on the held-back text it says what the run itself said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundling.cli.main import main
from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe

SEQ2SEQ = {"layers": 1, "width": 32, "heads": 4, "kv_heads": 2, "mlp_width": 64}
XLNET = {"layers": 1, "width": 32, "heads": 4, "mlp_width": 64}
RUNS: dict[str, dict[str, Any]] = {
    "rest of a text": {
        "model": {"family": "seq2seq", "size": SEQ2SEQ},
        "objective": {"kind": "seq2seq", "source_share": 0.3},
    },
    "permuted tokens": {
        "model": {"family": "xlnet", "size": XLNET},
        "objective": {"kind": "permutation", "one_in": 3},
    },
    "behind a prefix": {"objective": {"kind": "causal", "prefix": [0.2, 0.6]}},
}


def told(run: Path, corpus: Path, out: Path, *settings: str) -> dict[str, Any]:
    data = ["--data", str(corpus), "--json", str(out)]
    assert main(["evaluate", str(run), "--suite", "pretext", *data, "tokens=1M", "row_length=32", *settings]) == 0
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", RUNS)
def test_it_is_what_the_run_said_of_its_held_back_text(
    name: str, tiny_recipe: Callable[..., Recipe], tiny_corpus: Path, tmp_path: Path
) -> None:
    run = pretrain(tiny_recipe(**RUNS[name], **{"evaluate.tokens": 10**6}))
    found = told(run.folder, tiny_corpus, tmp_path / "figures.json")
    assert found["loss"] == pytest.approx(run.summary["valid"]["loss"], rel=1e-5)
    assert found["targets"] == run.summary["valid"]["tokens"]
    assert list(found["by_source"]) == ["texts"]
    # a model folder does not say what it was trained by: there the family's own objective as it comes
    own = told(run.model_dir, tiny_corpus, tmp_path / "own.json")
    kind = tiny_recipe(**RUNS[name]).objective.kind
    asked = told(run.folder, tiny_corpus, tmp_path / "asked.json", f"objective={{kind: {kind}}}")
    assert own["loss"] == asked["loss"] != found["loss"]


def test_what_cannot_be_is_told(
    tiny_recipe: Callable[..., Recipe], tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(pretrain(tiny_recipe(**{"train.length": "1 steps"})).folder)
    (tmp_path / "short.txt").write_text("few", encoding="utf-8")
    for arguments, line in (
        (["--data", str(tiny_corpus), "row_length=64K"], "row_length must be at most 32, the model's positions"),
        (["--data", str(tmp_path / "short.txt")], "the text must fill one row; got each training source must hold"),
        (["--data", str(tiny_corpus), "objective={kind: mlm}"], "trained by, causal; got mlm"),
    ):
        assert main(["evaluate", run, "--suite", "pretext", *arguments]) == 2
        assert line in capsys.readouterr().err
