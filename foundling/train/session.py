"""A run from its recipe to its folder: what pretraining and fine-tuning have in common."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import yaml

import foundling
from foundling.core.config import differences, resolved
from foundling.core.errors import UserError
from foundling.core.files import MANIFEST, hash_of, read_json, read_manifest, write_json, write_text
from foundling.core.lock import alone_in
from foundling.core.log import JsonLines, logger
from foundling.parallel.checkpoint import read_state
from foundling.parallel.world import World, enter_world
from foundling.train.callbacks.base import Callback
from foundling.train.loop import run_loop
from foundling.train.machine import describe
from foundling.train.run import Run
from foundling.train.settings import Settings
from foundling.train.state import Training, checkpoints, load_checkpoint, newest_checkpoint

_FREE_ON_RESUME = (
    "checkpoint.",
    "evaluate.",
    "parallel.",
    "track",
    "train.log_every",
    "train.guard.limit",
    "out",
    "name",
)
"""Keys that change nothing of what is learnt, so a resumed run may change them."""
_BOUND_ON_RESUME = ("evaluate.metric", "evaluate.examples")
"""But for these, by which the weights that are kept were chosen."""

_TRAINING = 4
"""Raised wherever the same recipe and data come to learn something else than before, or a checkpoint to hold something
else: then no run is gone on with."""


class Kind(Protocol):
    """What differs between kinds of runs."""

    def prepare(self, recipe: Any, folder: Path) -> Any:
        """The data, made where it is missing; it has `inputs`, the keys of what it was made from."""
        ...

    def build(self, recipe: Any, data: Any, folder: Path, world: World, settings: Settings | None) -> Training:
        """All live objects at the first step. settings: those of the run to resume; None: settled now."""
        ...

    def callbacks(self, training: Training, identity: dict[str, Any]) -> list[Callback]:
        """What happens around steps. identity: what a resume must match."""
        ...

    def finish(self, training: Training) -> None:
        """Model folder, summary and report of a run that ended or was stopped politely; every process calls it."""
        ...


def run_recipe(recipe: Any, kind: Kind, *, resume: bool, share: float = 1.0, data_folder: Path | None = None) -> Run:
    """Trains what a recipe declares.

    resume: go on from the newest checkpoint of the run folder, to the bit. share: of the run's steps after which it
    rests, with a checkpoint, to be resumed. data_folder: where what is made of the data lies; None: the run folder.
    """
    folder = recipe.folder
    _refuse_mixing(folder, resume)
    checkpoint = newest_checkpoint(folder) if resume else None
    state = None if checkpoint is None else _whole_state(checkpoint)
    identity: dict[str, Any] = {"recipe": resolved(recipe), "training": _TRAINING}
    _must_match(state, identity)
    world = enter(recipe)
    data = prepare_once(recipe, kind, data_folder or folder, world)
    identity["inputs"] = data.inputs
    _must_match(state, identity)
    if state is not None and _is_at_its_end(state) and is_finished(folder, recipe):
        logger.info("%s is finished already; nothing is left to do", folder)
        return Run(folder, None, world.is_first)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder, "trained") if world.is_first else nullcontext():
        training = kind.build(recipe, data, folder, world, None if state is None else _settings(state, world))
        if checkpoint is not None and state is not None:
            load_checkpoint(training, checkpoint, state)
            logger.info("resumed from step %d of %d", training.step, training.settings.total_steps)
        training.rests_at = max(1, round(share * training.settings.total_steps))
        callbacks = kind.callbacks(training, identity)
        if world.is_first:
            _describe_run(training, identity)
            # a resumed run at step 0 evaluates again, as every run does there
            training.num_records = training.num_records if training.step else 0
            training.sinks = [JsonLines(folder / "metrics.jsonl", training.num_records)]
            training.sinks += [track.build(folder, training.step if resume else None) for track in recipe.track]
        try:
            run_loop(training, callbacks)
        finally:
            for sink in training.sinks:
                sink.close()
        kind.finish(training)
        return Run(folder, training.stop_signal, world.is_first)


def _is_at_its_end(state: dict[str, Any]) -> bool:
    return bool(state["ends_early"]) or state["step"] >= state["settings"]["total_steps"]


def _whole_state(checkpoint: Path) -> dict[str, Any]:
    """The state of a checkpoint, or what is wrong with it and how to go on without it."""
    try:
        return read_state(checkpoint)
    except UserError as error:
        older = [path.name for path in checkpoints(checkpoint.parent) if path != checkpoint]
        way_out = f"remove {checkpoint} to go on from {older[-1]}" if older else "start a new run with another out=DIR"
        raise UserError("the newest checkpoint must be whole", got=str(error).split(";")[0], do=way_out) from error


def enter(recipe: Any) -> World:
    """Joins the other processes; all but the first fall silent unless something is wrong."""
    world = enter_world(recipe.parallel.tensor)
    if not world.is_first:
        logger.setLevel("WARNING")
    return world


def prepare_once(recipe: Any, kind: Kind, folder: Path, world: World) -> Any:
    """The first process builds what is missing; the others find it built."""
    if world.is_first:
        is_new = not folder.exists()
        try:
            data = kind.prepare(recipe, folder)
        except BaseException:
            if is_new and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()  # a run that is refused leaves nothing
            raise
        world.barrier()
        return data
    world.barrier()
    return kind.prepare(recipe, folder)


def is_finished(folder: Path, recipe: Any) -> bool:
    """Whether the run folder holds this very recipe's run, trained to its end, and what came of it."""
    if not all((folder / name).exists() for name in ("summary.json", MANIFEST, "model")):
        return False
    summary, manifest = read_json(folder / "summary.json"), read_manifest(folder, "run")
    return bool(summary.get("finished")) and manifest["settings"]["recipe"] == resolved(recipe)


def _refuse_mixing(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(
            "the run folder must be a folder, or new", got=f"the file {folder}", do="choose another out=DIR"
        )
    if not resume and checkpoints(folder):
        raise UserError(
            f"{folder} holds a run already (step {checkpoints(folder)[-1].name[11:]})",
            do="add --resume to go on with it, or choose another out=DIR",
        )


def _settings(state: dict[str, Any], world: World) -> Settings:
    settings = Settings(**state["settings"])
    share = settings.batch_rows // world.data_size
    if settings.batch_rows % world.data_size:
        raise UserError(
            f"the batch of {settings.batch_rows} rows must fall evenly over the processes", got=world.data_size
        )
    return replace(settings, micro_batch_rows=min(settings.micro_batch_rows, share))


def _must_match(state: dict[str, Any] | None, identity: dict[str, Any]) -> None:
    """A resumed run must be the same run: the same recipe where it matters, the same data, the same tokenizer."""
    if state is None:
        return
    if state.get("training", 1) != identity["training"]:
        raise UserError(
            "--resume must continue a run of a version that trains alike",
            got="one that was begun by another, with other rates, masks or pairs",
            do="go on with that version, or start a new run with another out=DIR",
        )
    # a rewind goes back to a checkpoint, so how often they are written decides what is learnt
    rewinds = "rewind" in identity["recipe"]["train"]["guard"].values()
    free = tuple("checkpoint.keep" if rewinds and key == "checkpoint." else key for key in _FREE_ON_RESUME)
    found = [
        line
        for key in sorted(identity.keys() - {"training"})
        for line in differences(state[key], identity[key], "" if key == "recipe" else key)
        if line.startswith(_BOUND_ON_RESUME) or not line.startswith(free)
    ]
    if found:
        raise UserError(
            "--resume must continue the same run; what differs: " + ", ".join(found),
            do="undo that, or start a new run with another out=DIR",
        )


def _describe_run(training: Training, identity: dict[str, Any]) -> None:
    """recipe.yaml and manifest.json: what the run is made of, before it trains."""
    folder = training.folder
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(identity["recipe"], sort_keys=False, allow_unicode=True)
    write_text(folder / "recipe.yaml", text)
    manifest = {
        "kind": "run",
        "key": hash_of(identity),
        "settings": {**identity, "settled": training.settings.as_json()},
        "inputs": identity["inputs"],
        "counts": {"weights": sum(p.numel() for p in training.model.parameters()), **training.data.counts},
        "code": {"foundling": foundling.__version__},
        "machine": describe(),
        "files": {},
    }
    write_json(folder / MANIFEST, manifest)
