"""Pretraining, whole: recipe to run folder. What the command and `foundling.pretrain` call."""

import shutil
from pathlib import Path
from typing import Any

from foundling.core.files import MANIFEST, write_json
from foundling.models.hub import save_model
from foundling.models.word2vec import Word2Vec, write_vectors
from foundling.parallel.world import World
from foundling.train.build import build, check, whole_model
from foundling.train.callbacks.base import Callback
from foundling.train.callbacks.checkpoint import Checkpoint
from foundling.train.callbacks.evaluate import Evaluate
from foundling.train.callbacks.metrics import Metrics
from foundling.train.prepare import Data, prepare
from foundling.train.recipe import Recipe, assignments, read_recipe
from foundling.train.report import write_report
from foundling.train.run import Run
from foundling.train.session import enter, prepare_once, run_recipe
from foundling.train.settings import Settings
from foundling.train.state import Training, checkpoints


def pretrain(recipe: Recipe | str | Path, *, resume: bool = False, **overrides: Any) -> Run:
    """Trains a model from a recipe and returns its run.

    recipe: a recipe file, or a `Recipe`. overrides: dotted keys, as in `pretrain(file, **{"train.clip": 2})`.
    resume: go on from the newest checkpoint of the run folder, bit for bit as if never stopped.
    Under `torchrun` each process calls it alike. Raises UserError for whatever a user can mend.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, assignments(overrides))
    return run_recipe(recipe, Pretraining(), resume=resume)


class Pretraining:
    """What `session.run_recipe` asks of a kind of run."""

    def prepare(self, recipe: Recipe, folder: Path) -> Data:
        check(recipe, resumed=bool(checkpoints(recipe.folder)))
        return prepare(recipe, folder)

    def build(self, recipe: Recipe, data: Data, folder: Path, world: World, settings: Settings | None) -> Training:
        return build(recipe, data, folder, world, settings)

    def callbacks(self, training: Training, identity: dict[str, Any]) -> list[Callback]:
        return [Evaluate(training), Metrics(), Checkpoint(identity)]

    def finish(self, training: Training) -> None:
        _finish(training)


def plan(recipe: Recipe) -> Settings:
    """Everything of a run but the training: builds data and tokenizer, settles and logs what is open."""
    world, kind = enter(recipe), Pretraining()
    data = prepare_once(recipe, kind, recipe.folder, world)
    return kind.build(recipe, data, recipe.folder, world, None).settings


def _finish(training: Training) -> None:
    """Summary, model folder and report of a run that ended or was stopped politely."""
    with training.optimizer.averaged():
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
    last, averaged = (
        {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
        for prefix in ("valid/", "average/")
    )
    return {
        "finished": training.is_at_its_end,
        "steps": training.step,
        "tokens": training.num_tokens,
        "seconds": round(training.clock.seconds(), 3),
        "tokens_per_second": metrics.get("mean_tokens_per_second"),
        "share_of_matmul_limit": metrics.get("mean_share"),
        "weights": sum(p.numel() for p in training.model.parameters()),
        "train": {"loss": metrics.get("loss")},
        "guard": training.guard.counts,
        "valid": averaged or last,
        **({"valid_of_last_weights": last} if averaged else {}),
        "settings": settings.as_json(),
    }


def start_over(folder: Path) -> None:
    """Removes what training wrote into a run folder; corpus, tokenizer and tokens stay."""
    for path in checkpoints(folder):
        shutil.rmtree(path)
    for name in ("metrics.jsonl", "summary.json", "report.html", "recipe.yaml", "vectors.txt", MANIFEST):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "model", ignore_errors=True)
