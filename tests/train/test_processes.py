"""Runs as processes: killed, told to stop, and several at once."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe
from foundling.train.state import checkpoints
from tests.processes import Started, finish, start, together, torchrun
from tests.train.test_pretrain import assert_same_bits, metrics_of, tensors_of

pytestmark = pytest.mark.xdist_group("processes")

Make = Callable[..., Recipe]
Data = Callable[..., dict[str, Any]]


def write(data: dict[str, Any], path: Path) -> str:
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return str(path)


def started(recipe: str, *more: str) -> Started:
    return start("-m", "foundling", "pretrain", recipe, *more)


def wait_for(condition: Callable[[], object], process: Started) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.output()
        assert time.monotonic() < limit
        time.sleep(0.01)


LONG = {
    "train.length": "150 steps", "checkpoint.every": "10 steps", "checkpoint.keep": 2, "evaluate.every": "50 steps",
}  # fmt: skip


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_is_uninterrupted(
    tiny_recipe: Make, tiny_data: Data, tmp_path: Path
) -> None:
    whole = pretrain(tiny_recipe("whole", **LONG))
    folder = tmp_path / "killed"
    recipe = write(tiny_data("killed", **LONG), tmp_path / "killed.yaml")
    rng, survived = random.Random(7), 0
    for _ in range(3):
        resume = ["--resume"] if checkpoints(folder) else []
        process = started(recipe, *resume)
        before = len(checkpoints(folder)) and checkpoints(folder)[-1].name
        wait_for(lambda before=before: checkpoints(folder) and checkpoints(folder)[-1].name != before, process)
        time.sleep(rng.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        status, _ = finish(process)
        survived += status == 0
    assert survived < 3, "every run had ended before it was killed"
    status, output = finish(started(recipe, "--resume"))
    assert status == 0, output
    assert_same_bits(whole.folder, folder)
    assert not list(folder.glob(".*")), "what a killed process left was cleared"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint_and_resume_goes_on(
    tiny_recipe: Make, tiny_data: Data, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    keys = {"train.length": "120 steps", "checkpoint.every": "50 steps", "train.log_every": 1}
    folder = tmp_path / "told"
    recipe = write(tiny_data("told", **keys), tmp_path / "told.yaml")
    process = started(recipe)
    wait_for(lambda: (folder / "metrics.jsonl").exists() and len(metrics_of(folder)) > 5, process)
    process.send_signal(number)
    status, output = finish(process)
    assert status == expected, output
    assert "Traceback" not in output
    assert "--resume" in output
    stopped_at = int(checkpoints(folder)[-1].name[11:])
    assert stopped_at < 120
    pretrain(tiny_recipe("told", **keys), resume=True)
    whole = pretrain(tiny_recipe("whole", **keys))
    assert_same_bits(whole.folder, folder)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tiny_recipe: Make, tiny_data: Data, tmp_path: Path) -> None:
    keys = {"train.length": "20 steps", "optimizer.lr": 1e-3, "train.log_every": 1, "evaluate.every": "10 steps"}
    keys |= {"train.average": {"kind": "ema", "decay": 0.9}}
    one = pretrain(tiny_recipe("one", **keys))
    recipe = write(tiny_data("two", **keys), tmp_path / "two.yaml")
    output = torchrun(2, "-m", "foundling", "pretrain", recipe)
    folder = tmp_path / "two"
    assert output.count("done:") == 1, "one process speaks"
    first, second = metrics_of(one.folder), metrics_of(folder)
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for key in ("train/loss", "train/gradient_norm", "valid/loss", "valid/bits_per_byte", "average/loss"):
        values = [[line[key] for line in lines if key in line] for lines in (first, second)]
        np.testing.assert_allclose(values[1], values[0], atol=1e-4, err_msg=key)
    assert checkpoints(folder)[-1].name == "checkpoint-20"
    assert len(list(checkpoints(folder)[-1].glob("state-*"))) == 2

    # cut the last steps off: what two wrote, one resumes
    for name in ("checkpoint-20",):
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    resumed = pretrain(tiny_recipe("two", **keys), resume=True)
    assert resumed.summary["finished"]
    whole, parts = tensors_of(one.folder), tensors_of(resumed.folder)
    for name, tensor in whole.items():
        if name.startswith("master/"):
            np.testing.assert_allclose(parts[name].numpy(), tensor.numpy(), atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_tensor_group_of_two_learns_what_one_process_does(tiny_recipe: Make, tiny_data: Data, tmp_path: Path) -> None:
    keys = {"train.length": "10 steps", "optimizer.lr": 1e-3, "train.log_every": 1}
    one = pretrain(tiny_recipe("one", **keys))
    recipe = write(tiny_data("split", **keys, **{"parallel.tensor": 2}), tmp_path / "split.yaml")
    together(2, "-m", "foundling", "pretrain", recipe)
    first, second = metrics_of(one.folder), metrics_of(tmp_path / "split")
    for key in ("train/loss", "train/gradient_norm", "valid/loss"):
        values = [[line[key] for line in lines if key in line] for lines in (first, second)]
        np.testing.assert_allclose(values[1], values[0], atol=1e-4, err_msg=key)
