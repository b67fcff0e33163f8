"""What a run does at a step that its guard finds out of the ordinary: warn, stop, pass over its rows, or go back."""

import math
import shutil
from collections.abc import Sequence
from typing import Literal

import numpy as np

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.data.batch import Batch
from foundling.parallel.checkpoint import read_state
from foundling.train.guard import FINDINGS, Finding
from foundling.train.state import Training, checkpoint_at, checkpoints, load_checkpoint, rewind_point

Action = Literal["warn", "skip", "rewind"]


class NotFinite(UserError):
    """A step's loss or gradient is NaN or infinite; the step was not taken."""


_MOST_NAMED = 4
"""Rows behind an incident that are named one by one."""


def found_by_all(training: Training, loss: float, gradient_norm: float) -> Finding:
    """What the step is, the same on every process: a spike where it is one to the first, whose memory is what a
    checkpoint holds, and not finite where it is so to any."""
    finding = training.guard.finding(loss, gradient_norm, training.recipe.train.guard)
    if finding == "spike" and not training.world.is_first:
        finding = ""
    return FINDINGS[training.world.max(FINDINGS.index(finding))]


def respond(
    training: Training, batches: Sequence[Batch], finding: Finding, loss: float, gradient_norm: float
) -> Action:
    """Does what the recipe says of this finding, tells it in one line, and records it; every process calls it.

    After `warn` the step is to be taken; after `skip` and `rewind` the training stands where the next step begins, with
    other rows. UserError where the recipe says stop, or has no more skips and rewinds left.
    """
    config, guard, step = training.recipe.train.guard, training.guard, training.step + 1
    action = config.spike if finding == "spike" else config.non_finite
    rows = _rows_behind(training, batches)
    what = f"loss {loss:.6g}, gradient norm {gradient_norm:.6g}"
    beyond: dict[str, float] = {}
    if finding == "spike":
        heights = guard.heights(loss, gradient_norm)
        what += f" ({heights[0]:.3g} and {heights[1]:.3g} deviations above the last {len(guard.losses)} steps)"
        beyond |= {"guard/loss_height": round(heights[0], 2), "guard/gradient_norm_height": round(heights[1], 2)}
    where = _named(rows)
    if action == "stop":
        raise _stopped(step, finding, f"{what}, in {where}")
    if action != "warn" and guard.skipped + guard.rewound >= config.limit:
        raise UserError(
            f"a run may skip or rewind {config.limit} times (train.guard.limit); step {step} was not taken",
            got=f"{what}, in {where}",
            do="look at these rows, start a new run with a lower optimizer.lr, or raise the limit and --resume",
        )
    if action == "warn":
        guard.warned += 1
    elif action == "skip":
        guard.skipped += 1
        guard.passed_over[training.settings.stretch_at(training.step)] += 1
        training.optimizer.zero()
    else:
        guard.rewound += 1
        beyond["guard/back_to"] = _rewind(training)
    done = {
        "warn": "taken",
        "skip": "its rows are passed over",
        "rewind": f"back to step {training.step}; all rows since are passed over",
    }[action]
    if training.world.is_first:
        logger.warning("step %d: %s: %s; highest losses: %s", step, what, done, where)
    values = {
        "guard/finding": finding,
        "guard/action": action,
        "guard/loss": _plain(loss),
        "guard/gradient_norm": _plain(gradient_norm),
        "guard/rows": [text for _, text in rows[:_MOST_NAMED]],
        **beyond,
        **{f"guard/{name}": number for name, number in guard.counts.items()},
    }
    training.record(values, step)
    return action


def _rewind(training: Training) -> int:
    """Puts everything back as it was at the last regular checkpoint, but for the rows since, which are passed over, and
    for the clock and the counts, which go on. Its step."""
    point, before, clock, num_records = rewind_point(training), training.guard, training.clock, training.num_records
    passed_over = list(before.passed_over)
    for step in range(point, training.step + 1):
        passed_over[training.settings.stretch_at(step)] += 1
    folder = checkpoint_at(training, point)
    load_checkpoint(training, folder, read_state(folder))
    training.optimizer.zero()
    training.guard.passed_over, training.clock, training.num_records = passed_over, clock, num_records
    for name in ("warned", "skipped", "rewound"):
        setattr(training.guard, name, getattr(before, name))
    training.world.barrier()  # all have read before any newer checkpoint goes
    if training.world.is_first:
        for path in checkpoints(training.folder):
            if int(path.name[11:]) > point:
                shutil.rmtree(path)
    for sink in training.sinks:
        sink.rewind(point)
    return point


def _stopped(step: int, finding: Finding, got: str) -> UserError:
    must = "be finite" if finding == "non_finite" else "stay near those of the last steps"
    return (NotFinite if finding == "non_finite" else UserError)(
        f"loss and gradient must {must}; step {step} was not taken",
        got=got,
        do="look at these rows, or start a new run with a lower optimizer.lr or another train.guard",
    )


def _rows_behind(training: Training, batches: Sequence[Batch]) -> list[tuple[float, str]]:
    """Mean loss and name of rows of the step, the highest first, over all processes; where some are not finite, these
    alone."""
    samples = training.samples[training.settings.stretch_at(training.step)]
    found: list[tuple[float, int]] = []
    with training.trainee.scoring():
        for batch in batches:
            losses = training.trainee(batch.to(training.world.device), None)["loss"].double().cpu().numpy()
            rows = batch.rows_of_losses(len(losses)).numpy()
            found += [(losses[rows == row].mean(), batch.samples_R[row]) for row in np.unique(rows)]
    everywhere = [pair for pairs in training.world.gather(found) for pair in pairs]
    bad = [pair for pair in everywhere if not math.isfinite(pair[0])]
    worst = sorted(bad or everywhere, key=lambda pair: (-pair[0] if math.isfinite(pair[0]) else 0, pair[1]))
    names = [f"sample {s} ({training.data.name_of(samples[s])})" for _, s in worst[:_MOST_NAMED]]
    names += [""] * (len(worst) - len(names))
    return [(float(loss), name) for (loss, _), name in zip(worst, names, strict=True)]


def _named(rows: Sequence[tuple[float, str]]) -> str:
    shown = "; ".join(f"{name}: {loss:.4g}" for loss, name in rows[:_MOST_NAMED])
    return shown + (f"; and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else "")


def _plain(value: float) -> float | str:
    """A number as JSON knows it; what is not finite as text."""
    return value if math.isfinite(value) else str(value)
