"""What a run is made of while it trains, and what a checkpoint holds of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundling.core.errors import UserError
from foundling.core.log import Sink
from foundling.data.batch import Batch
from foundling.data.rows import Samples
from foundling.objectives.base import Objective, Scale
from foundling.optim.optimizer import Optimizer
from foundling.optim.schedules.base import Schedule
from foundling.parallel.apply import reshard
from foundling.parallel.checkpoint import Piece, load_pieces, piece_of, save_pieces
from foundling.parallel.world import World
from foundling.train.guard import Guard
from foundling.train.machine import Precision
from foundling.train.settings import Clock, Settings


class Trainee(nn.Module):
    """Model and loss as one module, so that FSDP2 gathers the head's weights while the loss reads them."""

    def __init__(self, model: nn.Module, objective: Objective, compiled: bool) -> None:
        super().__init__()
        self.model = model
        self._objective, self._compiled = objective, compiled

    def forward(self, batch: Batch, scale: Scale | None) -> Any:
        """The objective's `Losses`, with gradients; with scale None its scores, for evaluation."""
        if scale is None:
            return self._objective.scores(self.model, batch)  # type: ignore[arg-type]
        return self._objective.loss(self.model, batch, scale, self._compiled)  # type: ignore[arg-type]

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Forward passes alone, without dropout, gradients or traces in the training."""
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train()
            reshard(self)


@dataclass
class Best:
    """The best weights of a run so far, by a figure on examples held back."""

    step: int
    value: float
    """How good they are: the larger the better."""
    misses: int
    """Evaluations since, none of them better."""
    masters: dict[str, Tensor]
    """This process's shards, fp32, by parameter name."""


@dataclass
class Training:
    """The live objects of a run. `step` counts finished optimizer steps."""

    recipe: Any
    """A `Recipe` or a `FinetuneRecipe`."""
    folder: Path
    world: World
    settings: Settings
    precision: Precision
    data: Any
    """Its `Data` or `TaskData`."""
    samples: list[Samples]
    """The order of the rows in each of the settings' stretches."""
    trainee: Trainee
    objective: Objective
    optimizer: Optimizer
    schedule: Schedule
    sinks: list[Sink] = field(default_factory=list)
    step: int = 0
    tokens_by_source: list[int] = field(default_factory=list)
    """Tokens of each source trained on so far, over all processes."""
    losses_by_source: Tensor = field(init=False)
    """Sum and number of the losses of each source in the steps since they were last told, fp64 [sources, 2] on the
    CPU; zeros where there is one source."""
    guard: Guard = field(default_factory=lambda: Guard([]))
    clock: Clock = field(default_factory=Clock)
    metrics: dict[str, Any] = field(default_factory=dict)
    """The newest figures, by name."""
    loss_parts: dict[str, float] = field(default_factory=dict)
    """The parts of the newest step's loss, by name."""
    num_records: int = 0
    """How often figures were sent to the sinks: the lines of `metrics.jsonl`."""
    stop_signal: int | None = None
    """Set by SIGTERM or SIGINT: the loop ends after the step in hand."""
    best: Best | None = None
    """Where a callback chooses weights."""
    rests_at: int = 0
    """Step after which the run pauses to be resumed; the last one, where it is to have its full length."""
    ends_early: bool = False
    """Set by a callback: the run is finished after the step in hand."""

    def __post_init__(self) -> None:
        self.rests_at = self.rests_at or self.settings.total_steps
        self.tokens_by_source = self.tokens_by_source or [0] * len(self.data.names)
        self.losses_by_source = torch.zeros(len(self.data.names), 2, dtype=torch.float64)
        self.guard.passed_over = self.guard.passed_over or [0] * len(self.settings.stretches)

    @property
    def model(self) -> Any:
        return self.trainee.model

    @property
    def is_at_its_end(self) -> bool:
        """Whether no step is left, not even to a run that is resumed."""
        return self.ends_early or self.step >= self.settings.total_steps

    @property
    def rows(self) -> Samples:
        """The order with the longest rows: the only one, where the recipe has no phases."""
        return max(self.samples, key=lambda samples: samples.row_length)

    @property
    def num_tokens(self) -> int:
        """Tokens trained on so far, over all processes."""
        return sum(self.tokens_by_source)

    @property
    def flops_per_token(self) -> float:
        return self.model.flops_per_token(self.settings.row_length)

    def record(self, values: dict[str, Any], step: int | None = None) -> None:
        """Sends figures of a step, or of the present one, to every sink, from the first process alone."""
        self.metrics |= values
        self.num_records += 1
        for sink in self.sinks:
            sink.write(self.step if step is None else step, values)


def _pieces(training: Training) -> dict[str, Piece]:
    found = {name: piece_of(tensor, like) for name, (tensor, like) in training.optimizer.tensors().items()}
    if training.best is not None:
        parameters = {slot.name: slot.parameter for slot in training.optimizer.slots}
        best = training.best.masters
        found |= {f"best/{name}": piece_of(best[name], like) for name, like in parameters.items()}
    return found


def save_checkpoint(training: Training, identity: dict[str, Any]) -> Path:
    """Writes `checkpoint-{step}` whole or not at all; every process calls it. identity: what a resume must match."""
    folder = checkpoint_at(training, training.step)
    state = {
        "step": training.step,
        "optimizer_steps": training.optimizer.steps,
        "tokens_by_source": training.tokens_by_source,
        "losses_by_source": training.losses_by_source.tolist(),
        "seconds": training.clock.seconds(),
        "settings": training.settings.as_json(),
        "best": None if (best := training.best) is None else [best.step, best.value, best.misses],
        "ends_early": training.ends_early,
        "guard": training.guard.as_json(),
        "records": training.num_records,
        "metrics": training.metrics,
        **identity,
    }
    save_pieces(folder, _pieces(training), state, training.world)
    return folder


def load_checkpoint(training: Training, folder: Path, state: dict[str, Any]) -> None:
    """Puts weights, optimizer and position back as they were."""
    training.best = None
    if state["best"] is not None:
        masters = {slot.name: torch.empty_like(slot.master) for slot in training.optimizer.slots}
        step, value, misses = state["best"]
        training.best = Best(step, value, misses, masters)
    training.ends_early = state["ends_early"]
    load_pieces(folder, _pieces(training))
    training.optimizer.refresh_copies()
    training.optimizer.steps = state["optimizer_steps"]
    training.step, training.tokens_by_source = state["step"], state["tokens_by_source"]
    training.losses_by_source = torch.tensor(state["losses_by_source"], dtype=torch.float64)
    training.clock = Clock(state["seconds"])
    training.guard, training.num_records = Guard(**state["guard"]), state["records"]
    training.metrics = state["metrics"]


def steps_between_checkpoints(training: Training) -> int:
    """Steps from one regular checkpoint to the next, where they do not come by the clock (assert)."""
    steps = training.recipe.checkpoint.every.steps(
        tokens_per_step=training.settings.tokens_per_step, steps_per_epoch=0
    )  # fmt: skip
    return max(1, steps)


def rewind_point(training: Training) -> int:
    """The step of the last regular checkpoint: a function of the step alone, wherever the run was stopped between."""
    steps = steps_between_checkpoints(training)
    return training.step // steps * steps


def checkpoint_at(training: Training, step: int) -> Path:
    """Where the checkpoint of a step lies, or would."""
    return training.folder / f"checkpoint-{step}"


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run folder, oldest first. They are written whole: one that is not was damaged since."""
    found = [p for p in folder.glob("checkpoint-*") if p.is_dir() and p.name[11:].isdigit()]
    return sorted(found, key=lambda p: int(p.name[11:]))


def newest_checkpoint(folder: Path) -> Path:
    found = checkpoints(folder)
    if not found:
        raise UserError("--resume needs a checkpoint", got=f"none in {folder}", do="start without --resume")
    return found[-1]
