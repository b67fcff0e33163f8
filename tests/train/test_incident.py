"""Steps out of the ordinary: what is skipped or taken back leaves no trace in the weights, however the run is cut."""

import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from foundling.core.errors import UserError
from foundling.core.files import read_json
from foundling.data.batch import Batch
from foundling.data.rows import Row
from foundling.objectives.base import Losses
from foundling.train import pretrain as pretrain_module
from foundling.train.callbacks.metrics import Metrics
from foundling.train.finetune import finetune
from foundling.train.page import read_metrics
from foundling.train.pretrain import pretrain
from foundling.train.recipe import Recipe
from foundling.train.state import Trainee, Training, checkpoints
from tests.processes import together
from tests.tasks.small import write_rows
from tests.train.test_finetune import ROWS, made
from tests.train.test_pretrain import TIMES, assert_same_bits, tensors_of

Make = Callable[..., Recipe]
SPIKE, NAN = 1e6, math.nan
GUARD = {"train.guard": {"spike": "skip", "non_finite": "skip", "window": 8, "threshold": 50}, "train.log_every": 1}
"""Spikes are judged from the fifth step on, and the runs' own noise is none."""
REWIND = {"train.guard": {**GUARD["train.guard"], "spike": "rewind", "non_finite": "rewind"}, "train.log_every": 1}  # type: ignore[dict-item]


def scaled(losses: Losses, factor: float) -> Losses:
    return Losses({name: part * factor for name, part in losses.parts.items()}, losses.each * factor)


def poison(monkeypatch: pytest.MonkeyPatch, samples: Sequence[int], factor: float) -> None:
    """A batch that holds one of these samples has its loss multiplied; of the scores only those of these rows."""
    before, met = Trainee.forward, set()

    def tokens(batch: Batch, row: int) -> tuple[int, ...]:
        return tuple(batch.tokens_N[batch.bounds_R1[row] : batch.bounds_R1[row + 1]].tolist())

    def forward(self: Trainee, batch: Batch, scale: Any) -> Any:
        found = before(self, batch, scale)
        if scale is not None:
            bad = [row for row, sample in enumerate(batch.samples_R) if sample in samples]
            met.update(tokens(batch, row) for row in bad)
            return scaled(found, factor) if bad else found
        factors_R = [factor if tokens(batch, row) in met else 1.0 for row in range(batch.num_rows)]
        if len(found["loss"]) == len(batch.tokens_N):
            found["loss"] = found["loss"] * torch.tensor(factors_R).repeat_interleave(batch.bounds_R1.diff())
        return found

    monkeypatch.setattr(Trainee, "forward", forward)


class LeftOut:
    """An order of rows without some."""

    def __init__(self, samples: Any, first: int, number: int) -> None:
        self._samples, self._first, self._number = samples, first, number
        self.row_length, self.rows_per_stream = samples.row_length, samples.rows_per_stream
        self.num_rows = samples.num_rows

    def __getitem__(self, sample: int) -> Row:
        row: Row = self._samples[sample if sample < self._first else sample + self._number]
        return row


def leave_out(monkeypatch: pytest.MonkeyPatch, *holes: tuple[int, int]) -> None:
    """Takes `number` rows from `first` on out of the order of each stretch, before the run begins."""
    before = Metrics.on_start

    def on_start(self: Metrics, training: Training) -> None:
        training.samples = [LeftOut(s, *hole) for s, hole in zip(training.samples, holes, strict=True)]
        before(self, training)

    monkeypatch.setattr(Metrics, "on_start", on_start)


def events(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if "guard/finding" in line]


def assert_as_if_never_seen(run: Path, reference: Path) -> None:
    """Weights, optimizer, tokens, the guard's memory and all figures that count."""
    ours, theirs = tensors_of(run), tensors_of(reference)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    states = [read_json(checkpoints(folder)[-1] / "state.json") for folder in (run, reference)]
    for key in ("step", "optimizer_steps", "tokens_by_source"):
        assert states[0][key] == states[1][key], key
    for key in ("losses", "gradient_norms"):
        assert states[0]["guard"][key] == states[1]["guard"][key], key
    figures = [
        [
            {k: v for k, v in line.items() if k not in TIMES}
            for line in read_metrics(folder / "metrics.jsonl")
            if "guard/finding" not in line
        ]
        for folder in (run, reference)
    ]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(("factor", "finding"), [(SPIKE, "spike"), (NAN, "non_finite")])
def test_a_skipped_step_leaves_no_trace(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, factor: float, finding: str
) -> None:
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        poison(patch, [43], factor)  # in the sixth batch of eight rows
        run = pretrain(tiny_recipe("skipped", **GUARD))
    (line,) = [record.message for record in caplog.records if "step 6" in record.message]
    assert "its rows are passed over; highest losses: sample 43 (corpus, tokens from" in line
    (event,) = events(run.folder)
    assert (event["step"], event["guard/finding"], event["guard/action"]) == (6, finding, "skip")
    assert event["guard/rows"][0].startswith("sample 43 (corpus, tokens from ")
    assert "document " in event["guard/rows"][0]
    assert run.summary["guard"] == {"warned": 0, "skipped": 1, "rewound": 0, "batches_passed_over": 1}
    assert "sample 43" in (run.folder / "report.html").read_text(encoding="utf-8")
    leave_out(monkeypatch, (40, 8))
    assert_as_if_never_seen(run.folder, pretrain(tiny_recipe("never", **GUARD)).folder)


@pytest.mark.parametrize(("factor", "finding"), [(SPIKE, "spike"), (NAN, "non_finite")])
def test_a_rewind_leaves_no_trace_of_all_rows_since_the_checkpoint(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch, factor: float, finding: str
) -> None:
    keys = {**REWIND, "train.average": {"kind": "ema", "decay": 0.5}, "track": ["tensorboard"]}
    with monkeypatch.context() as patch:
        poison(patch, [50], factor)  # in the seventh batch; the last regular checkpoint is that of step 4
        run = pretrain(tiny_recipe("rewound", **keys))
    (event,) = events(run.folder)
    assert (event["step"], event["guard/finding"], event["guard/back_to"]) == (7, finding, 4)
    assert run.summary["guard"] == {"warned": 0, "skipped": 0, "rewound": 1, "batches_passed_over": 3}
    steps = [line["step"] for line in run.metrics if "train/loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8], "the file keeps what was taken back"
    shown = EventAccumulator(str(run.folder)).Reload().Scalars("train/loss")
    assert [event.step for event in shown] == [1, 2, 3, 4, 5, 6, 7, 8]
    leave_out(monkeypatch, (32, 24))
    assert_as_if_never_seen(run.folder, pretrain(tiny_recipe("never", **keys)).folder)


def test_a_rewind_across_row_lengths_passes_over_rows_of_both(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = [{"share": 0.5, "sequence_length": 16}, {"share": 0.5, "sequence_length": 32}]
    keys = {
        **REWIND, "train.phases": phases, "train.sequence_length": None, "train.batch": "256 tokens",
        "checkpoint.every": "3 steps",
    }  # fmt: skip
    before = Trainee.forward

    def forward(self: Trainee, batch: Batch, scale: Any) -> Any:
        bad = scale is not None and batch.max_row_length > 16 and 9 in batch.samples_R
        found = before(self, batch, scale)
        return scaled(found, NAN) if bad else found

    with monkeypatch.context() as patch:
        patch.setattr(Trainee, "forward", forward)
        run = pretrain(tiny_recipe("rewound", **keys))
    # rows of 16: 16 a step, steps 0 to 3; rows of 32: 8 a step, from step 4 on; sample 9 there is of step 5
    (event,) = events(run.folder)
    assert (event["step"], event["guard/back_to"]) == (6, 3)
    assert read_json(checkpoints(run.folder)[-1] / "state.json")["guard"]["passed_over"] == [1, 2]
    leave_out(monkeypatch, (48, 16), (0, 16))
    assert_as_if_never_seen(run.folder, pretrain(tiny_recipe("never", **keys)).folder)


@pytest.mark.parametrize("call", [6, 7, 9, "rewind"])
@pytest.mark.parametrize("keys", [GUARD, REWIND], ids=["skip", "rewind"])
def test_cut_and_resumed_around_an_incident_is_uninterrupted(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], call: int | str
) -> None:
    """Steps 1 to 6 are taken, the next meets the bad row; then come 7 and 8, or 5 to 8 again."""
    keys = {**keys, "train.length": "10 steps", "checkpoint.keep": 1}
    poison(monkeypatch, [50], SPIKE)
    whole = pretrain(tiny_recipe("whole", **keys))
    on_step, on_rewind, calls = Metrics.on_step, Metrics.on_rewind, []

    def stop_at(self: Metrics, training: Training) -> None:
        on_step(self, training)
        calls.append(training.step)
        if len(calls) == call:
            training.stop_signal = 15

    def stop_then(self: Metrics, training: Training) -> None:
        on_rewind(self, training)
        if call == "rewind":
            training.stop_signal = 15

    with monkeypatch.context() as patch:
        patch.setattr(pretrain_module.Metrics, "on_step", stop_at)
        patch.setattr(pretrain_module.Metrics, "on_rewind", stop_then)
        cut = pretrain(tiny_recipe("cut", **keys))
    if cut.stop_signal is None:
        assert (call, keys["train.guard"]["spike"]) == ("rewind", "skip")
    else:
        pretrain(tiny_recipe("cut", **keys), resume=True)
    assert_same_bits(whole.folder, cut.folder)
    states = [read_json(checkpoints(folder)[-1] / "state.json") for folder in (whole.folder, cut.folder)]
    assert states[0]["guard"] == states[1]["guard"]
    assert len(events(cut.folder)) == 1


def test_a_rewind_before_the_first_checkpoint_goes_to_the_beginning(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        poison(patch, [12], NAN)
        run = pretrain(tiny_recipe("rewound", **REWIND))
    assert events(run.folder)[0]["guard/back_to"] == 0
    leave_out(monkeypatch, (0, 16))
    assert_as_if_never_seen(run.folder, pretrain(tiny_recipe("never", **REWIND)).folder)


def test_a_fine_tuning_forgets_the_best_weights_that_a_rewind_takes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {split: str(write_rows(tmp_path / f"{split}.jsonl", ROWS)) for split in ("train", "dev")}
    guard = {"non_finite": "rewind", "spike": "ignore"}
    keys = {"train.guard": guard, "evaluate.every": "1 steps", "checkpoint.every": "4 steps", "evaluate.metric": "nll",
            "train.length": "6 steps", "train.unfreeze": "1 steps"}  # fmt: skip
    keys |= {"checkpoint.keep": 1}
    with monkeypatch.context() as patch:
        bad = made(tmp_path, files, "rewound", **keys)
        per_step = int(bad.train.batch.value)
        poison(patch, [2 * per_step], NAN)  # the third step
        run = finetune(bad)
    assert events(run.folder)[0]["guard/back_to"] == 0
    assert run.summary["guard"]["rewound"] == 1
    leave_out(monkeypatch, (0, 3 * per_step))
    assert_as_if_never_seen(run.folder, finetune(made(tmp_path, files, "never", **keys)).folder)


def test_a_warning_changes_nothing_that_is_learnt(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poison(monkeypatch, [43], SPIKE)
    keys = {"train.guard.window": 8, "train.guard.threshold": 50, "train.dropout": 0.1}
    with caplog.at_level(logging.WARNING):
        run = pretrain(tiny_recipe("warned", **keys))
    (event,) = events(run.folder)
    assert (event["step"], event["guard/action"]) == (6, "warn")
    assert event["guard/loss_height"] > 50
    assert sum("step 6: loss" in record.message for record in caplog.records) == 1
    assert run.summary["guard"] == {"warned": 1, "skipped": 0, "rewound": 0, "batches_passed_over": 0}
    plain = pretrain(tiny_recipe("plain", **{"train.guard.spike": "ignore", "train.dropout": 0.1}))
    ours, theirs = tensors_of(run.folder), tensors_of(plain.folder)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_a_spike_can_end_the_run(tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, [43], SPIKE)
    keys = {"train.guard": {"spike": "stop", "window": 8, "threshold": 50}}
    told = (
        r"near those of the last steps; step 6 was not taken; got loss .*deviations above the last 5 steps.*sample 43"
    )
    with pytest.raises(UserError, match=told):
        pretrain(tiny_recipe(**keys))
    assert checkpoints(tiny_recipe().folder)[-1].name == "checkpoint-4"


@pytest.mark.parametrize("keys", [GUARD, REWIND], ids=["skip", "rewind"])
def test_a_run_that_meets_too_many_incidents_ends_and_a_higher_limit_goes_on(
    tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    keys = {**keys, "train.guard": {**keys["train.guard"], "limit": 2}}
    poison(monkeypatch, [43, 50, 51, 58, 66, 71], SPIKE)  # four batches one after another
    with pytest.raises(UserError, match=r"may skip or rewind 2 times \(train.guard.limit\).*raise the limit"):
        pretrain(tiny_recipe(**keys))
    assert len(events(tiny_recipe().folder)) == 2
    keys["train.guard"]["limit"] = 4
    run = pretrain(tiny_recipe(**keys), resume=True)
    assert run.summary["finished"]
    assert len(events(run.folder)) == run.summary["guard"]["skipped"] + run.summary["guard"]["rewound"] > 2


def test_rewinds_need_checkpoints_by_step_and_keep_to_them(tiny_recipe: Make) -> None:
    with pytest.raises(UserError, match=r"give checkpoint.every in steps, such as 500 steps; got 300 s"):
        tiny_recipe(**REWIND, **{"checkpoint.every": "5 min"})
    pretrain(tiny_recipe(**REWIND))
    changed = {
        "checkpoint.every": "3 steps",
        "checkpoint.keep": 1,
        "train.guard": {**REWIND["train.guard"], "limit": 3},
    }  # type: ignore[dict-item]
    with pytest.raises(UserError, match=r"what differs: checkpoint.every: '4 steps' -> '3 steps'; undo"):
        pretrain(tiny_recipe(**{**REWIND, **changed}), resume=True)


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("spike", ["skip", "rewind"])
def test_two_processes_find_what_one_does(
    tiny_recipe: Make, tiny_data: Callable[..., dict[str, Any]], tmp_path: Path, spike: str
) -> None:
    """A threshold that the runs' own noise passes now and then."""
    guard = {"spike": spike, "threshold": 2.5, "window": 8, "limit": 100}
    groups = [{"match": "embedding.weight", "lr": 1e-3}]
    keys = {
        "train.length": "20 steps", "optimizer.lr": 1e-3, "optimizer.groups": groups, "train.guard": guard,
        "checkpoint.every": "2 steps",
    }  # fmt: skip
    one = pretrain(tiny_recipe("one", **keys))
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump(tiny_data("two", **keys)), encoding="utf-8")
    output = together(2, "-m", "foundling", "pretrain", str(recipe))
    found = [
        [(e["step"], e["guard/action"], e["guard/rows"][0], e.get("guard/back_to")) for e in events(folder)]
        for folder in (one.folder, tmp_path / "two")
    ]
    assert found[0]
    assert found[0] == found[1]
    assert output.count("; highest losses: ") == len(found[0]), "one process speaks"
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["guard"] == one.summary["guard"]


def test_a_rewind_across_batches_of_one_order(tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewind from a stretch of large batches into one of small ones of the same rows passes over what both drew."""
    phases = [{"share": 0.5, "batch": "2 rows"}, {"share": 0.5, "batch": "8 rows"}]
    keys = {**REWIND, "train.phases": phases, "train.batch": None, "checkpoint.every": "3 steps"}
    with monkeypatch.context() as patch:
        poison(patch, [17], NAN)
        run = pretrain(tiny_recipe("rewound", **keys))
    leave_out(monkeypatch, (6, 18), (6, 18))
    assert_as_if_never_seen(run.folder, pretrain(tiny_recipe("never", **keys)).folder)
