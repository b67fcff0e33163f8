"""Pretraining, whole: recipe to run folder. What the command and `foundling.pretrain` call."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

import foundling
from foundling.core.config import differences, resolved
from foundling.core.errors import UserError
from foundling.core.files import MANIFEST, hash_of, read_json, read_manifest, write_json, write_text
from foundling.core.log import JsonLines, logger
from foundling.models.hub import save_model
from foundling.models.word2vec import Word2Vec, write_vectors
from foundling.parallel.checkpoint import read_state
from foundling.parallel.world import World, enter_world
from foundling.train.build import build, whole_model
from foundling.train.callbacks.checkpoint import Checkpoint
from foundling.train.callbacks.evaluate import Evaluate
from foundling.train.callbacks.metrics import Metrics
from foundling.train.loop import Callback, run_loop
from foundling.train.machine import describe
from foundling.train.prepare import Data, prepare
from foundling.train.recipe import Recipe, read_recipe
from foundling.train.report import write_report
from foundling.train.run import Run
from foundling.train.settings import Settings
from foundling.train.state import Training, checkpoints, load_checkpoint, newest_checkpoint

_FREE_ON_RESUME = ("checkpoint.", "evaluate.", "parallel.", "track", "train.log_every", "out", "name")
"""Keys that change nothing of what is learnt, so a resumed run may change them."""


def pretrain(recipe: Recipe | str | Path, *, resume: bool = False, **overrides: Any) -> Run:
    """Trains a model from a recipe and returns its run.

    recipe: a recipe file, or a `Recipe`. overrides: dotted keys, as in `pretrain(file, **{"train.clip": 2})`.
    resume: go on from the newest checkpoint of the run folder, bit for bit as if never stopped.
    Under `torchrun` each process calls it alike. Raises UserError for whatever a user can mend.
    """
    if not isinstance(recipe, Recipe):
        assignments = tuple(
            f"{key}={yaml.safe_dump(value).removesuffix('...' + chr(10))}" for key, value in overrides.items()
        )
        recipe = read_recipe(recipe, assignments)
    folder = recipe.folder
    _refuse_mixing(folder, resume)
    checkpoint = newest_checkpoint(folder) if resume else None
    state = None if checkpoint is None else _whole_state(checkpoint)
    identity: dict[str, Any] = {"recipe": resolved(recipe)}
    _must_match(state, identity)
    world = _enter(recipe)
    data = _prepare_once(recipe, folder, world)
    identity["inputs"] = data.inputs
    _must_match(state, identity)
    training = build(recipe, data, folder, world, None if state is None else _settings(state, world))
    torch.manual_seed(recipe.seed + world.data_rank)  # what trains may draw; a checkpoint holds where each stands
    if checkpoint is not None and state is not None:
        load_checkpoint(training, checkpoint, state)
        logger.info("resumed from step %d of %d", training.step, training.settings.total_steps)
    callbacks: list[Callback] = [Evaluate(training), Metrics(), Checkpoint(identity)]
    if world.is_first:
        _describe_run(training, identity)
        training.sinks = [JsonLines(folder / "metrics.jsonl", training.step if resume else None)]
        training.sinks += [track.build(folder, training.step if resume else None) for track in recipe.track]
    try:
        run_loop(training, callbacks)
    finally:
        for sink in training.sinks:
            sink.close()
    _finish(training)
    world.close()
    return Run(folder, training.stop_signal, world.is_first)


def _whole_state(checkpoint: Path) -> dict[str, Any]:
    """The state of a checkpoint, or what is wrong with it and how to go on without it."""
    try:
        return read_state(checkpoint)
    except UserError as error:
        older = [path.name for path in checkpoints(checkpoint.parent) if path != checkpoint]
        way_out = f"remove {checkpoint} to go on from {older[-1]}" if older else "start a new run with another out=DIR"
        raise UserError("the newest checkpoint must be whole", got=str(error).split(";")[0], do=way_out) from error


def _enter(recipe: Recipe) -> World:
    """Joins the other processes; all but the first fall silent unless something is wrong."""
    world = enter_world(recipe.parallel.tensor)
    if not world.is_first:
        logger.setLevel("WARNING")
    return world


def plan(recipe: Recipe) -> Settings:
    """Everything of a run but the training: builds data and tokenizer, settles and logs what is open."""
    world = _enter(recipe)
    return build(recipe, _prepare_once(recipe, recipe.folder, world), recipe.folder, world, None).settings


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the run folder holds this very recipe's run, trained to its end."""
    if not (folder / "summary.json").exists() or not (folder / MANIFEST).exists():
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


def _prepare_once(recipe: Recipe, folder: Path, world: World) -> Data:
    """The first process builds what is missing; the others find it built."""
    if world.is_first:
        data = prepare(recipe, folder)
        world.barrier()
        return data
    world.barrier()
    return prepare(recipe, folder)


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
    found = [
        line
        for key in identity
        for line in differences(state[key], identity[key], "" if key == "recipe" else key)
        if not line.startswith(_FREE_ON_RESUME)
    ]
    if found:
        raise UserError(
            "--resume must continue the same run; what differs: " + ", ".join(found),
            do="undo that, or start a new run with another out=DIR",
        )


def _describe_run(training: Training, identity: dict[str, Any]) -> None:
    """recipe.yaml and manifest.json: what the run is made of, before it trains."""
    folder = training.folder
    text = yaml.safe_dump(identity["recipe"], sort_keys=False, allow_unicode=True)
    write_text(folder / "recipe.yaml", text)
    manifest = {
        "kind": "run",
        "key": hash_of(identity),
        "settings": {**identity, "settled": training.settings.as_json()},
        "inputs": identity["inputs"],
        "counts": {
            "weights": sum(p.numel() for p in training.model.parameters()),
            "train_tokens": sum(s.num_tokens for s in training.data.train),
            "valid_tokens": sum(s.num_tokens for s in training.data.valid),
        },
        "code": {"foundling": foundling.__version__},
        "machine": describe(),
        "files": {},
    }
    write_json(folder / MANIFEST, manifest)


def _finish(training: Training) -> None:
    """Summary, model folder and report of a run that ended or was stopped politely."""
    model = whole_model(training)
    if training.world.is_first:
        folder, data = training.folder, training.data
        save_model(model, folder / "model", tokenizer=data.tokenizer, card={"datasets": data.names})
        if isinstance(model, Word2Vec):
            write_vectors(folder / "vectors.txt", model.embedding.weight, data.tokenizer)
        write_json(folder / "summary.json", _summary(training))
        write_report(folder)
    training.world.barrier()


def _summary(training: Training) -> dict[str, Any]:
    metrics, settings = training.metrics, training.settings
    return {
        "finished": training.step >= settings.total_steps,
        "steps": training.step,
        "tokens": training.num_tokens,
        "seconds": round(training.clock.seconds(), 3),
        "tokens_per_second": metrics.get("mean_tokens_per_second"),
        "share_of_matmul_limit": metrics.get("mean_share"),
        "weights": sum(p.numel() for p in training.model.parameters()),
        "train": {"loss": metrics.get("loss")},
        "valid": {k.removeprefix("valid/"): v for k, v in metrics.items() if k.startswith("valid/")},
        "settings": settings.as_json(),
    }


def start_over(folder: Path) -> None:
    """Removes what training wrote into a run folder; corpus, tokenizer and tokens stay."""
    for path in checkpoints(folder):
        shutil.rmtree(path)
    for name in ("metrics.jsonl", "summary.json", "report.html", "recipe.yaml", "vectors.txt", MANIFEST):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "model", ignore_errors=True)
