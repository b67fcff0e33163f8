"""What happens around steps."""

from foundling.train.state import Training


class Callback:
    """Something that happens around steps; here nothing does. All of a run's callbacks are called in order."""

    def on_start(self, training: Training) -> None:
        """Before the first step, or the first after a resume."""

    def on_step(self, training: Training) -> None:
        """After each optimizer step; `training.step` counts it already."""

    def on_rewind(self, training: Training) -> None:
        """After the run went back to a checkpoint; `training.step` is that of the checkpoint."""

    def on_end(self, training: Training) -> None:
        """After the last step, also of a run that was told to stop; not after a fault."""
