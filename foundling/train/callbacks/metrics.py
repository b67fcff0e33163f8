"""Figures of the run, every `log_every` steps, and the progress that a person watches."""

import time

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from foundling.core.log import console, interactive, logger
from foundling.core.units import human
from foundling.train.state import Training


class Metrics:
    """Loss, rate, throughput and its share of the machine's measured matrix rate."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._mark: tuple[float, int] = (0.0, 0)
        self._first = 0
        self._started = 0.0

    def on_start(self, training: Training) -> None:
        self._mark, self._first, self._started = (training.clock.seconds(), training.step), training.step, time.time()
        if training.world.is_first and interactive():
            columns = (
                TextColumn("[bold]train"), BarColumn(bar_width=28), TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[figures]}"), TimeRemainingColumn(compact=True),
            )  # fmt: skip
            self._progress = Progress(*columns, console=console, transient=False)
            total = training.settings.total_steps
            self._task = self._progress.add_task("train", total=total, completed=training.step, figures="compiling")
            self._progress.start()

    def on_step(self, training: Training) -> None:
        due = training.step % training.recipe.train.log_every == 0 or training.step == training.settings.total_steps
        if training.step == self._first + 1:
            # compilation belongs to the first step alone: throughput is what follows
            training.metrics["first_step_seconds"] = training.clock.seconds() - self._mark[0]
            self._mark = (training.clock.seconds(), training.step)
        if due:
            self._write(training)
        if self._progress is not None:
            self._progress.update(self._task, completed=training.step, figures=_line(training))

    def _write(self, training: Training) -> None:
        now = training.clock.seconds()
        metrics, rates = training.metrics, {}
        if training.step > self._mark[1]:  # not of the first step alone
            tokens = (training.step - self._mark[1]) * training.settings.tokens_per_step
            rate = tokens / max(1e-9, now - self._mark[0])
            limit = training.precision.flops_per_second * training.world.size
            rates = {
                "train/tokens_per_second": rate,
                "train/share_of_matmul_limit": rate * training.flops_per_token / limit,
            }
        self._mark = (now, training.step)
        training.record(
            {
                "train/loss": metrics["loss"],
                "train/gradient_norm": metrics["gradient_norm"],
                "train/lr": metrics["lr"],
                "train/tokens": training.step * training.settings.tokens_per_step,
                **rates,
                "train/seconds": now,
            }
        )
        if self._progress is None and training.world.is_first:
            logger.info("step %d/%d  %s", training.step, training.settings.total_steps, _line(training))

    def on_end(self, training: Training) -> None:
        if self._progress is not None:
            self._progress.stop()


def _line(training: Training) -> str:
    found = training.metrics
    parts = [f"loss {found['loss']:.3f}"]
    if "train/tokens_per_second" in found:
        share = 100 * found["train/share_of_matmul_limit"]
        parts += [f"{human(found['train/tokens_per_second'])} tokens/s", f"{share:.0f} % of the matmul limit"]
    if "valid/bits_per_byte" in found:
        parts.append(f"valid {found['valid/bits_per_byte']:.3f} bits/byte")
    return "  ".join(parts)
