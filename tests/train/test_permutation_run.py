"""A permutation model through the whole of a run, with memory and without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from foundling.models.hub import load_model
from foundling.train.pretrain import pretrain
from tests.processes import together
from tests.train.test_pretrain import Make, assert_same_bits, metrics_of, stop_after

SHAPE = {"layers": 2, "width": 32, "heads": 4, "mlp_width": 64}
RUNS: dict[str, dict[str, Any]] = {
    "plain": {"model": {"family": "xlnet", "size": SHAPE}},
    "rotary": {"model": {"family": "xlnet", "size": {**SHAPE, "positions": "rotary"}}},
    "memory": {
        "model": {"family": "xlnet", "size": SHAPE},
        "objective": {"kind": "permutation", "memory": 16, "bidirectional": True},
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_it_learns_and_its_folder_is_read_again(name: str, tiny_recipe: Make) -> None:
    run = pretrain(tiny_recipe(**RUNS[name], **{"train.length": "100 steps", "optimizer.lr": 1e-2}))
    losses = [line["valid/loss"] for line in run.metrics if "valid/loss" in line]
    assert losses[-1] < losses[0] - 0.3, "it began with what frequencies tell, and knows more"
    assert "valid/bits_per_byte" not in run.summary["valid"]
    model: Any = load_model(run.model_dir)
    stored = load_file(run.model_dir / "model.safetensors")
    assert sum(p.numel() for p in model.parameters()) == sum(v.numel() for v in stored.values())


@pytest.mark.parametrize("name", ["plain", "memory"])
def test_resumed_is_uninterrupted_to_the_bit(name: str, tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pretrain(tiny_recipe("whole", **RUNS[name]))
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        pretrain(tiny_recipe("cut", **RUNS[name]))
    torch.manual_seed(99)
    cut = pretrain(tiny_recipe("cut", **RUNS[name]), resume=True)
    assert_same_bits(whole.folder, cut.folder)


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize(("name", "tensor"), [("memory", 1), ("plain", 2)])
def test_two_processes_learn_what_one_does(
    name: str, tensor: int, tiny_recipe: Make, tiny_data: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Rows over two processes, or the MLP's matrices."""
    keys = {**RUNS[name], "train.length": "10 steps", "optimizer.lr": 1e-3, "train.log_every": 1}
    one = pretrain(tiny_recipe("one", **keys))
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump(tiny_data("two", **keys, **{"parallel.tensor": tensor})), encoding="utf-8")
    together(2, "-m", "foundling", "pretrain", str(recipe))
    first, second = metrics_of(one.folder), metrics_of(tmp_path / "two")
    for key in ("train/loss", "train/gradient_norm", "valid/loss"):
        values = [[line[key] for line in lines if key in line] for lines in (first, second)]
        assert values[0]
        np.testing.assert_allclose(values[1], values[0], atol=1e-4, err_msg=key)
