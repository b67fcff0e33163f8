"""Laws of a whole run: the same recipe, the same bits, however it is cut."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foundling.core.errors import UserError
from foundling.core.lock import alone_in
from foundling.tokenizers.char import Config as CharConfig
from foundling.train import loop, machine, prepare, session, settings
from foundling.train import pretrain as pretrain_module
from foundling.train.callbacks.evaluate import validation_rows
from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe, recipe_from
from foundling.train.state import Training, checkpoints

TIMES = {"train/tokens_per_second", "train/share_of_matmul_limit", "train/seconds"}
Make = Callable[..., Recipe]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint of a run folder."""
    return load_file(next(checkpoints(folder)[-1].glob("state-*.safetensors")))


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_same_bits(one: Path, two: Path) -> None:
    first, second = tensors_of(one), tensors_of(two)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert metrics_of(one) == metrics_of(two)
    assert (one / "model" / "model.safetensors").read_bytes() == (two / "model" / "model.safetensors").read_bytes()


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pretrain_module.Metrics.on_step

    def on_step(self: Any, training: Training) -> None:
        before(self, training)
        if training.step == step:
            training.stop_signal = 15

    monkeypatch.setattr(pretrain_module.Metrics, "on_step", on_step)


def test_a_run_learns_and_its_folder_is_whole(tiny_recipe: Make, tmp_path: Path) -> None:
    run = pretrain(tiny_recipe(track=["jsonl", "tensorboard"], **{"train.length": "30 steps"}))
    for name in ("recipe.yaml", "manifest.json", "metrics.jsonl", "summary.json", "report.html"):
        assert (run.folder / name).exists(), name
    assert (run.model_dir / "model.safetensors").exists()
    scores = [line["valid/bits_per_byte"] for line in run.metrics if "valid/bits_per_byte" in line]
    assert scores[-1] < 0.8 * scores[0]
    assert run.summary["finished"]
    assert run.summary["steps"] == 30
    assert run.summary["valid"]["bits_per_byte"] == scores[-1]
    assert [p.name for p in checkpoints(run.folder)] == ["checkpoint-24", "checkpoint-28", "checkpoint-30"]
    assert not list(run.folder.glob(".*"))
    assert sum(p.stat().st_size for p in run.folder.glob("events.out.tfevents.*")) > 1000
    again = pretrain_module.read_recipe(run.folder / "recipe.yaml")
    assert again == tiny_recipe(track=["jsonl", "tensorboard"], **{"train.length": "30 steps"})


def test_the_same_recipe_gives_the_same_bits_and_another_seed_does_not(tiny_recipe: Make) -> None:
    one, two = pretrain(tiny_recipe("one")), pretrain(tiny_recipe("two"))
    assert_same_bits(one.folder, two.folder)
    three = pretrain(tiny_recipe("three", seed=1))
    name = "master/layers.0.mlp.up.weight"
    assert not torch.equal(tensors_of(one.folder)[name], tensors_of(three.folder)[name])


@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_resumed_is_uninterrupted_to_the_bit(tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    whole = pretrain(tiny_recipe("whole"))
    with monkeypatch.context() as patch:
        stop_after(stop, patch)
        cut = pretrain(tiny_recipe("cut"))
    assert cut.stop_signal == 15
    assert not cut.summary["finished"]
    assert checkpoints(cut.folder)[-1].name == f"checkpoint-{stop}"
    torch.manual_seed(99)
    pretrain(tiny_recipe("cut"), resume=True)
    assert_same_bits(whole.folder, cut.folder)


def test_a_run_folder_is_trained_by_one_process_at_a_time(tiny_recipe: Make, tmp_path: Path) -> None:
    run = pretrain(tiny_recipe("one"))
    shutil.rmtree(checkpoints(run.folder)[-1])
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    with alone_in(run.folder, "trained"), pytest.raises(UserError, match="trained by one process at a time"):
        pretrain(tiny_recipe("one"), resume=True)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before
    pretrain(tiny_recipe("one"), resume=True)


@pytest.mark.parametrize("stopped", [True, False])
def test_a_signal_that_ends_the_compiler_ends_the_run_politely(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """Ctrl-C in a terminal reaches the compiler that a step waits for as well; without a signal its fault is one."""
    from torch._inductor.exc import CppCompileError

    whole, step = pretrain(tiny_recipe("whole")), loop.training_step

    def interrupted(training: Training) -> Any:
        if training.step == 5:
            training.stop_signal = 2 if stopped else None
            raise CppCompileError(["g++"], "killed")
        return step(training)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", interrupted)
        if not stopped:
            with pytest.raises(CppCompileError):
                pretrain(tiny_recipe("cut"))
            return
        cut = pretrain(tiny_recipe("cut"))
    assert (cut.stop_signal, cut.summary["steps"]) == (2, 5)
    pretrain(tiny_recipe("cut"), resume=True)
    assert_same_bits(whole.folder, cut.folder)


def test_a_finished_run_resumes_to_itself(tiny_recipe: Make) -> None:
    run = pretrain(tiny_recipe("one"))
    before = tensors_of(run.folder)
    files = ("summary.json", "report.html", "metrics.jsonl", "manifest.json")
    written = {name: (run.folder / name).read_bytes() for name in files}
    again = pretrain(tiny_recipe("one"), resume=True)
    assert {name: (run.folder / name).read_bytes() for name in files} == written
    assert all(torch.equal(v, before[k]) for k, v in tensors_of(again.folder).items())


def test_a_run_that_was_killed_before_its_summary_ends_with_the_same_figures(tiny_recipe: Make) -> None:
    run = pretrain(tiny_recipe("one"))
    before, model = run.summary, tensors_of(run.folder)
    (run.folder / "summary.json").unlink()
    shutil.rmtree(run.folder / "model")
    again = pretrain(tiny_recipe("one"), resume=True)
    assert again.summary | {"seconds": 0} == before | {"seconds": 0}
    assert all(torch.equal(v, model[k]) for k, v in tensors_of(again.folder).items())


def test_micro_batches_add_up_to_the_whole_batch(tiny_recipe: Make) -> None:
    runs = [pretrain(tiny_recipe(f"by{n}", **{"train.micro_batch": n})) for n in (8, 2, 1)]
    whole, *parts = [tensors_of(run.folder) for run in runs]
    for part in parts:
        for name, tensor in whole.items():
            if name.startswith("master/"):
                torch.testing.assert_close(part[name], tensor, atol=1e-6, rtol=1e-6, msg=name)
    losses = [[line["train/loss"] for line in metrics_of(run.folder) if "train/loss" in line] for run in runs]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-6)


def test_resume_with_a_changed_recipe_names_what_differs(tiny_recipe: Make) -> None:
    pretrain(tiny_recipe())
    changed = tiny_recipe(seed=3, **{"optimizer.lr": 1e-3, "checkpoint.keep": 1, "train.log_every": 1})
    with pytest.raises(UserError, match=r"what differs: optimizer.lr: 0.003 -> 0.001, seed: 0 -> 3; undo"):
        pretrain(changed, resume=True)
    pretrain(tiny_recipe(**{"checkpoint.keep": 1, "train.log_every": 1}), resume=True)


def test_a_run_folder_is_not_overwritten(tiny_recipe: Make) -> None:
    run = pretrain(tiny_recipe())
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*")}
    with pytest.raises(UserError, match="holds a run already"):
        pretrain(tiny_recipe())
    assert {p: p.stat().st_mtime_ns for p in run.folder.rglob("*")} == before


def test_a_loss_that_is_not_finite_stops_before_the_step(tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    step_before = loop.training_step

    def poisoned(training: Training) -> None:
        if training.step == 5:
            token = int(loop.rows_of_step(training, 5)[2].tokens[3])
            with torch.no_grad():
                training.model.embedding.weight[token] = math.nan
        step_before(training)

    monkeypatch.setattr(loop, "training_step", poisoned)
    with pytest.raises(UserError, match=r"step 6 was not taken; got loss nan.*in sample .*document") as caught:
        pretrain(tiny_recipe())
    assert "samples" not in str(caught.value)
    folder = tiny_recipe().folder
    assert checkpoints(folder)[-1].name == "checkpoint-4"
    assert all(torch.isfinite(v.float()).all() for v in tensors_of(folder).values())


def test_only_the_rows_behind_a_bad_loss_are_named(tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that stands in one row of the batch gets a bad embedding."""
    step_before = loop.training_step
    seen: dict[str, Any] = {}

    def poisoned(training: Training) -> None:
        if training.step == 2:
            rows = loop.rows_of_step(training, 2)
            counts = np.bincount(np.concatenate([np.unique(r.tokens) for r in rows]), minlength=400)
            row = next(r for r in rows if (counts[r.tokens[:-1]] == 1).any())
            token = int(row.tokens[:-1][counts[row.tokens[:-1]] == 1][0])
            seen["sample"] = row.sample
            with torch.no_grad():
                training.model.embedding.weight[token] = math.inf
        step_before(training)

    monkeypatch.setattr(loop, "training_step", poisoned)
    # untied, so that the bad row of the embedding reaches its own text alone
    size = {"layers": 1, "width": 16, "heads": 2, "tied": False}
    with pytest.raises(UserError) as caught:
        pretrain(tiny_recipe(**{"model.size": size}))
    assert f"in sample {seen['sample']} (corpus, tokens from" in str(caught.value)
    assert str(caught.value).count("sample ") == 1


@dataclass
class Share:
    """As much of a world as decides which rows are one's own."""

    data_rank: int
    data_size: int


def test_steps_take_each_sample_of_the_order_once_whatever_the_processes(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Training] = []
    monkeypatch.setattr(pretrain_module.Metrics, "on_start", lambda self, training: seen.append(training))
    pretrain(tiny_recipe(**{"train.length": "1 steps"}))
    (training,) = seen
    for size in (1, 2, 4):
        taken = []
        for step in range(5):
            for rank in range(size):
                alike = replace(training, world=Share(rank, size))  # type: ignore[arg-type]
                taken += [row.sample for row in loop.rows_of_step(alike, step)]
        assert taken == list(range(5 * 8)), size


def test_validation_bytes_are_those_of_the_text(tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Training] = []
    monkeypatch.setattr(pretrain_module.Metrics, "on_start", lambda self, training: seen.append(training))
    run = pretrain(tiny_recipe(**{"train.length": "1 steps", "evaluate.tokens": 10**9}))
    (training,) = seen
    stream = training.data.valid[0]
    rows = validation_rows(training, training.rows.row_length)
    num_targets = 32 * len(rows)
    assert len(rows) == (stream.num_tokens - 1) // 32
    scored = sum(num_bytes for _, num_bytes in rows)
    # all but the first token and what is left after the last row
    densest = (stream.document_bytes / stream.document_lengths).max()
    assert 0 < stream.num_bytes - scored < 33 * densest
    # a row from within one long stretch of documents: bytes of the whole documents inside it are counted exactly
    starts = np.append(stream.document_starts, stream.num_tokens)
    for row, num_bytes in rows:
        inside = [d for d in range(stream.num_documents) if starts[d] > row.start and starts[d + 1] <= row.start + 33]
        assert num_bytes >= sum(stream.document_bytes[d] for d in inside) - 1e-6
    last = [line for line in run.metrics if "valid/loss" in line][-1]
    assert last["valid/tokens"] == num_targets
    assert last["valid/bits_per_byte"] == pytest.approx(last["valid/loss"] * num_targets / math.log(2) / scored)


def test_a_run_from_a_model_folder_goes_on_from_its_weights(tiny_recipe: Make, tiny_data: Callable[..., Any]) -> None:
    first = pretrain(tiny_recipe("first", **{"train.length": "20 steps"}))
    data = tiny_data("second", model={"from": str(first.folder)}, **{"train.length": "2 steps"})
    del data["tokenizer"]
    second = pretrain(recipe_from(data))
    scores = [line["valid/loss"] for line in second.metrics if "valid/loss" in line]
    assert scores[0] == pytest.approx(first.summary["valid"]["loss"], rel=1e-6)


def test_without_a_compiler_auto_trains_uncompiled_and_says_so(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settings, "can_compile", lambda device: False)
    monkeypatch.setattr(settings, "_COMPILE_WINS_AFTER_SECONDS", {"bf16": -1, "fp32": -1})
    run = pretrain(tiny_recipe(**{"train.compile": "auto", "train.precision": "auto", "train.length": "2 steps"}))
    assert "no C++ compiler was found" in caplog.text
    assert run.summary["settings"]["compiled"] is False
    assert run.summary["settings"]["precision"] in ("bf16", "fp32")
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
        pretrain(tiny_recipe("two", **{"train.compile": True}))


def test_scalar_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that fails once is asked again; one that goes on failing is believed."""
    answers = [False, True]
    monkeypatch.setattr("torch._inductor.cpu_vec_isa.pick_vec_isa", lambda: answers.pop(0))
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert machine.vectorizes()
    answers[:] = [False] * 3
    assert not machine.vectorizes()
    assert not answers


@pytest.mark.slow
@pytest.mark.xdist_group("compile")
def test_compiled_in_bf16_learns_what_fp32_does(tiny_recipe: Make) -> None:
    size = {"layers": 1, "width": 32, "heads": 2, "mlp_width": 64}
    keys = {"train.length": "12 steps", "evaluate.tokens": 256, "model.size": size}
    plain = pretrain(tiny_recipe("plain", **keys))
    fast = pretrain(tiny_recipe("fast", **keys, **{"train.compile": True, "train.precision": "bf16"}))
    assert fast.summary["settings"]["compiled"]
    assert fast.summary["valid"]["loss"] == pytest.approx(plain.summary["valid"]["loss"], rel=0.02)
    masters = tensors_of(fast.folder)
    assert masters["master/embedding.weight"].dtype == torch.float32


@pytest.mark.parametrize("average", [{"kind": "ema", "decay": 0.5}, {"kind": "last", "number": 2, "every": "2 steps"}])
def test_averaged_weights_are_what_a_run_gives_and_a_resume_is_exact(
    tiny_recipe: Make, tmp_path: Path, average: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"optimizer": {"kind": "muon", "lr": 3e-3}, "train.average": average, "train.clip_value": 0.1}
    whole = pretrain(tiny_recipe(out=str(tmp_path / "whole"), **changes))
    assert whole.summary["valid"] != whole.summary["valid_of_last_weights"]
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        pretrain(tiny_recipe(out=str(tmp_path / "part"), **changes))
    resumed = pretrain(tiny_recipe(out=str(tmp_path / "part"), **changes), resume=True)
    assert resumed.summary["valid"] == whole.summary["valid"]
    first, second = tensors_of(whole.folder), tensors_of(resumed.folder)
    assert any(name.startswith("average/") for name in first)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    written = [load_file(run.model_dir / "model.safetensors") for run in (whole, resumed)]
    assert all(torch.equal(tensor, written[1][name]) for name, tensor in written[0].items())


def test_a_run_of_a_version_that_trains_otherwise_is_not_gone_on_with(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(session, "_TRAINING", session._TRAINING - 1)
        pretrain(tiny_recipe())
    with pytest.raises(UserError, match="must continue a run of a version that trains alike"):
        pretrain(tiny_recipe(), resume=True)


def test_a_tokenizer_of_other_text_is_told_before_the_text_is_tokenized(
    tiny_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prepare, "store_of", lambda *_: pytest.fail("text was tokenized"))
    of_others = CharConfig(kind="char").build().train(["海上生明月"])
    of_others.save(tmp_path / "others")
    with pytest.raises(UserError, match=r"must know the text that it cuts, .*got 100% unknown tokens"):
        pretrain(tiny_recipe(tokenizer={"path": str(tmp_path / "others")}))
    most = CharConfig(kind="char").build().train(["".join(chr(n) for n in range(32, 127) if chr(n) != "e")])
    most.save(tmp_path / "most")
    with pytest.raises(pytest.fail.Exception):
        pretrain(tiny_recipe("other", tokenizer={"path": str(tmp_path / "most")}))
    assert "are unknown to it, and what they stand for is not learnt" in caplog.text
