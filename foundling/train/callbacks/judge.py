"""Dev during a fine-tuning: answers, figures, the best weights so far, and when enough is enough."""

import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.evaluation.judge import chosen_figure, judge
from foundling.train.build import whole_model
from foundling.train.callbacks.base import Callback
from foundling.train.state import Best, Training

_FIRST_LOOK = 4
"""Dev examples that are answered before the first step, so that what cannot be measured is told at once."""


@dataclass
class Judge(Callback):
    """Answers dev every so often, keeps the best weights, and ends the run when `patience` evaluations bring none."""

    metric: str
    """The figure on dev that chooses."""
    patience: int | None
    """None: the run has its full length."""

    def on_start(self, training: Training) -> None:
        steps = training.recipe.evaluate.every.steps(
            tokens_per_step=training.settings.tokens_per_step,
            steps_per_epoch=training.rows.num_rows / training.settings.batch_rows,
            total_steps=training.settings.total_steps,
        )
        self._every = max(1, steps)
        if training.step == 0:
            try:
                self._figure(training, _FIRST_LOOK)
            except UserError:  # so few may lack the label that it is a figure of; what all of dev lacks is told
                self._figure(training, training.recipe.evaluate.examples)

    def on_step(self, training: Training) -> None:
        if training.step % self._every == 0 or training.step == training.rests_at:
            self._run(training)

    def _figure(self, training: Training, limit: int | None) -> tuple[dict[str, float], float]:
        """All figures on dev, and how good the chosen one is: the larger the better."""
        examples = training.data.examples["dev"][:limit]
        start = time.perf_counter()
        model = answering_model(training)
        answers = training.data.task.answers(model, examples)
        found = judge(training.data.task.measured(examples, answers))
        training.clock.leave_out(time.perf_counter() - start)
        value = chosen_figure(found.figures, self.metric)
        return found.figures, value if found.higher_is_better[self.metric] else -value

    def _run(self, training: Training) -> None:
        with training.optimizer.averaged():
            self._judge(training)

    def _judge(self, training: Training) -> None:
        figures, value = self._figure(training, training.recipe.evaluate.examples)
        best = training.best
        if best is None or value >= best.value:  # of equals the last, which has learnt most; it is no better, though
            misses = 0 if best is None or value > best.value else best.misses + 1
            training.best = best = Best(training.step, value, misses, masters_of(training))
        else:
            best.misses += 1
        training.metrics["dev_step"] = training.step
        training.record({f"dev/{name}": figure for name, figure in figures.items()})
        told = ", ".join(f"{name} {figure:.4f}" for name, figure in list(figures.items())[:3])
        logger.info("dev at step %d: %s", training.step, told)
        if self.patience is not None and best.misses >= self.patience:
            logger.info("no better %s in %d evaluations: the run ends here", self.metric, self.patience)
            training.ends_early = True


def masters_of(training: Training) -> dict[str, Tensor]:
    """A copy of this process's shards of all trained weights."""
    return {slot.name: slot.master.detach().clone() for slot in training.optimizer.slots}


def answering_model(training: Training) -> Any:
    """A model that answers outside the loop: the trained one where it can, else a whole fp32 copy of it."""
    lone = training.world.mesh is None and training.data.task.head() is not None
    return training.model if lone else whole_model(training).to(training.world.device)
