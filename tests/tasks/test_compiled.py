"""Rows of all lengths are computed by what was compiled for the first ones."""

from pathlib import Path

import pytest
import torch

from foundling.train.callbacks.metrics import Metrics
from foundling.train.finetune import finetune
from foundling.train.machine import can_compile
from foundling.train.state import Training
from tests.tasks.small import base_folder, recipe, write_rows

FEW_STEPS = 3
"""After which nothing more may be compiled."""


@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="no C++ compiler here")
@pytest.mark.xdist_group("compile")
@pytest.mark.parametrize("family", ["gpt", pytest.param("bert", marks=pytest.mark.slow)])
def test_rows_of_many_lengths_compile_nothing_after_the_first_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Nor does what dev is answered in. Graphs are traced for training and run as plain torch: what decides whether
    there is a further one is here, and code for them would take half a minute."""
    rows = [
        {"text": " ".join(f"w{7 + (i * k) % 40}" for k in range(2 + (i * 17) % 55)), "label": "ab"[i % 2]}
        for i in range(60)
    ]
    assert len({len(row["text"].split()) for row in rows}) > 50
    path = write_rows(tmp_path / "train.jsonl", rows)
    graphs, sizes = [], set()
    compiled, step = torch.compile, Metrics.on_step

    def traced(function: object, **settings: object) -> object:
        return compiled(function, **{**settings, "options": None, "backend": "aot_eager"})  # type: ignore[call-overload]

    def counted(self: Metrics, training: Training) -> None:
        step(self, training)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        sizes.add(training.num_tokens)

    monkeypatch.setattr(torch, "compile", traced)
    monkeypatch.setattr(Metrics, "on_step", counted)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    task = {"kind": "classification", "train": str(path), "dev": str(path)}
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        finetune(
            recipe(
                tmp_path / "run", base_folder(tmp_path, family), task, length="14 steps", batch="4 rows", compile=True
            )
        )
    graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert len(sizes) == 14
    assert 0 < graphs[FEW_STEPS - 1] == graphs[-1], graphs
