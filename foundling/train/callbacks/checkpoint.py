"""Writes the training state so often, at the end and when the run is told to stop; keeps the newest few."""

import shutil
import time
from typing import Any

from foundling.core.log import logger
from foundling.train.state import Training, checkpoints, save_checkpoint


class Checkpoint:
    def __init__(self, identity: dict[str, Any]) -> None:
        """identity: what a resume must match, written into each checkpoint's state."""
        self._identity = identity
        self._last_time = time.monotonic()
        self._last_step = -1

    def on_start(self, training: Training) -> None:
        self._last_time, self._last_step = time.monotonic(), training.step

    def on_step(self, training: Training) -> None:
        every = training.recipe.checkpoint.every
        if every.unit == "seconds":
            due = training.world.any(time.monotonic() - self._last_time >= every.seconds)
        else:
            steps = every.steps(tokens_per_step=training.settings.tokens_per_step, steps_per_epoch=0)
            due = training.step % max(1, steps) == 0
        if due:
            self._save(training)

    def on_end(self, training: Training) -> None:
        if training.step != self._last_step:
            self._save(training)

    def _save(self, training: Training) -> None:
        start = time.perf_counter()
        folder = save_checkpoint(training, self._identity)
        self._last_time, self._last_step = time.monotonic(), training.step
        if training.world.is_first:
            for old in checkpoints(training.folder)[: -training.recipe.checkpoint.keep]:
                shutil.rmtree(old)
        training.clock.leave_out(time.perf_counter() - start)
        logger.debug("checkpoint: %s", folder)
