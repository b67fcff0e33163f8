"""Gradual unfreezing: the head learns first, then one layer more after each stretch, from the top down."""

from foundling.parallel.apply import trained_anew
from foundling.train.callbacks.base import Callback
from foundling.train.layers import height_of
from foundling.train.state import Training


class Unfreeze(Callback):
    """Which parameters learn is a function of the step alone, so a resumed run goes on as if never stopped."""

    def on_start(self, training: Training) -> None:
        num_layers = len(training.model.blocks())
        self._heights = {slot.name: height_of(slot.name, num_layers) for slot in training.optimizer.slots}
        self._rates = {slot.name: slot.lr for slot in training.optimizer.slots}
        self._top = num_layers + 1
        self._stretch = max(
            1,
            training.recipe.train.unfreeze.steps(
                tokens_per_step=training.settings.tokens_per_step,
                steps_per_epoch=training.rows.num_rows / training.settings.batch_rows,
                total_steps=training.settings.total_steps,
            ),
        )
        for slot in training.optimizer.slots:
            slot.since = max(0, self._top - self._heights[slot.name]) * self._stretch
        self._apply(training)

    def on_step(self, training: Training) -> None:
        if training.step % self._stretch == 0:
            self._apply(training)

    def on_rewind(self, training: Training) -> None:
        self._apply(training)

    def _apply(self, training: Training) -> None:
        lowest = self._top - training.step // self._stretch
        for slot in training.optimizer.slots:
            learns = self._heights[slot.name] >= lowest
            slot.parameter.requires_grad_(learns)
            slot.lr = self._rates[slot.name] if learns else 0.0  # without a rate weight decay does nothing either
        trained_anew(training.trainee)
