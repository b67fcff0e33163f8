"""Figures of the run, every `log_every` steps, and the progress that a person watches."""

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from foundling.core.log import console, interactive, logger
from foundling.core.units import human
from foundling.train.callbacks.base import Callback
from foundling.train.state import Training


class Metrics(Callback):
    """Loss, rate, throughput and its share of the machine's measured matrix rate."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._mark: tuple[float, int] = (0.0, 0)  # seconds and tokens at the last line
        self._steady: tuple[float, int] = (0.0, 0)  # the same after the first step
        self._is_first_step = True
        self._seen = 0
        self._told = 0

    def on_start(self, training: Training) -> None:
        self._mark = (training.clock.seconds(), training.num_tokens)
        self._steady, self._told, self._seen = self._mark, training.step, training.num_tokens
        if training.world.is_first and interactive():
            columns = (
                TextColumn("[bold]train"), BarColumn(bar_width=14), TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[figures]}"), TimeRemainingColumn(compact=True),
            )  # fmt: skip
            self._progress = Progress(*columns, console=console, transient=False)
            total = training.settings.total_steps
            self._task = self._progress.add_task("train", total=total, completed=training.step, figures="compiling")
            self._progress.start()

    def on_step(self, training: Training) -> None:
        due = training.step % training.recipe.train.log_every == 0 or training.step == training.settings.total_steps
        if self._is_first_step:
            # compilation belongs to the first step alone: throughput is what follows
            training.metrics["first_step_seconds"] = training.clock.seconds() - self._mark[0]
            self._mark = self._steady = (training.clock.seconds(), training.num_tokens)
            self._is_first_step = False
        if due:
            self._write(training)
        self._seen = training.num_tokens
        if self._progress is not None:
            self._progress.update(self._task, completed=training.step, figures=_line(training))

    def on_rewind(self, training: Training) -> None:
        """Rates are of all that was computed, also of what does not count any more."""
        lost = self._seen - training.num_tokens
        self._mark, self._steady = ((seconds, tokens - lost) for seconds, tokens in (self._mark, self._steady))
        self._told, self._seen = min(self._told, training.step), training.num_tokens

    def _write(self, training: Training) -> None:
        now = training.clock.seconds()
        metrics, rates = training.metrics, {}
        if training.num_tokens > self._mark[1]:  # not of the first step alone
            rate = (training.num_tokens - self._mark[1]) / max(1e-9, now - self._mark[0])
            mean = (training.num_tokens - self._steady[1]) / (now - self._steady[0])
            for name in ("train/share_of_matmul_limit", "mean_share"):
                metrics.pop(name, None)
            rates = {"train/tokens_per_second": rate, **_share("train/share_of_matmul_limit", training, rate)}
            metrics |= {"mean_tokens_per_second": mean, **_share("mean_share", training, mean)}
        self._mark = (now, training.num_tokens)
        parts = training.loss_parts if len(training.loss_parts) > 1 else {}
        training.record(
            {
                "train/loss": metrics["loss"],
                **{f"train/loss_{name}": value for name, value in parts.items()},
                "train/gradient_norm": metrics["gradient_norm"],
                "train/lr": metrics["lr"],
                "train/tokens": training.num_tokens,
                **(_by_source(training) if len(training.data.names) > 1 else {}),
                **rates,
                "train/seconds": now,
            }
        )
        # without a person watching, some twenty lines a run
        often_enough = training.step - self._told >= training.settings.total_steps / 20
        if self._progress is None and (often_enough or training.step == training.settings.total_steps):
            self._told = training.step
            logger.info("step %d/%d  %s", training.step, training.settings.total_steps, _line(training))

    def on_end(self, training: Training) -> None:
        if self._progress is not None:
            self._progress.stop()


def _by_source(training: Training) -> dict[str, float]:
    """Of each source: tokens trained on so far, and the mean loss of its targets in the steps since the last line."""
    names, sums = training.data.names, training.losses_by_source.tolist()
    training.losses_by_source.zero_()
    tokens = {f"train/tokens/{name}": n for name, n in zip(names, training.tokens_by_source, strict=True)}
    return tokens | {f"train/loss/{name}": total / n for name, (total, n) in zip(names, sums, strict=True) if n}


def _share(name: str, training: Training, tokens_per_second: float) -> dict[str, float]:
    """What part of the measured matrix rate of all processes the model's FLOPs take; nothing where that is more than
    all of it, for then other work disturbed the measurement."""
    limit = training.precision.flops_per_second * training.world.size
    share = tokens_per_second * training.flops_per_token / limit
    return {name: share} if share <= 1.0 else {}


def _line(training: Training) -> str:
    found = training.metrics
    of = [f"{k.removeprefix('train/loss_')} {v:.2f}" for k, v in found.items() if k.startswith("train/loss_")]
    parts = [f"loss {found['loss']:.2f}" + (f" ({', '.join(of)})" if of else "")]
    if "train/tokens_per_second" in found:
        share = found.get("train/share_of_matmul_limit")
        of_limit = "" if share is None else f" ({100 * share:.0f} % of matmul)"
        parts.append(f"{human(found['train/tokens_per_second'])} tokens/s{of_limit}")
    if "valid/loss" in found:
        when = "" if found["valid_step"] == training.step else f" (step {found['valid_step']})"
        bits = found.get("valid/bits_per_byte")
        right = found.get("valid/next_accuracy")
        beside = "" if right is None else f", {100 * right:.0f} % of pairs"
        parts.append(
            f"valid {found['valid/loss']:.3f}{beside}{when}" if bits is None else f"valid {bits:.3f} bpb{when}"
        )
    return "  ".join(parts)
