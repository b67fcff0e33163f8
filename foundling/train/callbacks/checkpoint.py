"""Writes the training state so often, at the end and when the run is told to stop; keeps the newest few."""

import shutil
import time
from typing import Any

from foundling.core.log import logger
from foundling.train.callbacks.base import Callback
from foundling.train.state import (
    Training,
    checkpoint_at,
    checkpoints,
    rewind_point,
    save_checkpoint,
    steps_between_checkpoints,
)


class Checkpoint(Callback):
    def __init__(self, identity: dict[str, Any]) -> None:
        """identity: what a resume must match, written into each checkpoint's state."""
        self._identity = identity
        self._last_time = time.monotonic()
        self._last_step = -1

    def on_start(self, training: Training) -> None:
        self._last_time, self._last_step = time.monotonic(), training.step
        if training.recipe.train.guard.rewinds and training.step == 0:
            self._save(training)

    def on_step(self, training: Training) -> None:
        every = training.recipe.checkpoint.every
        if every.unit == "seconds":
            due = training.world.any(time.monotonic() - self._last_time >= every.seconds)
        else:
            due = training.step % steps_between_checkpoints(training) == 0
        if due:
            self._save(training)

    def on_rewind(self, training: Training) -> None:
        self._last_time, self._last_step = time.monotonic(), training.step

    def on_end(self, training: Training) -> None:
        if training.step != self._last_step:
            self._save(training)

    def _save(self, training: Training) -> None:
        start = time.perf_counter()
        folder = save_checkpoint(training, self._identity)
        self._last_time, self._last_step = time.monotonic(), training.step
        if training.world.is_first:
            for old in checkpoints(training.folder)[: -training.recipe.checkpoint.keep]:
                if not (training.recipe.train.guard.rewinds and old == checkpoint_at(training, rewind_point(training))):
                    shutil.rmtree(old)
        training.clock.leave_out(time.perf_counter() - start)
        logger.debug("checkpoint: %s", folder)
