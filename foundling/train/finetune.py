"""Fine-tuning, whole: recipe to run folder. What the command and `foundling.finetune` call."""

import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from foundling.core.config import resolved
from foundling.core.files import whole_folder, write_json, write_text
from foundling.core.log import logger
from foundling.evaluation.judge import Judgement, judge
from foundling.evaluation.significance import over_seeds
from foundling.parallel.world import World
from foundling.tasks.folder import save_task
from foundling.tasks.rows import ExampleRows
from foundling.train.build import assemble, whole_model
from foundling.train.callbacks.base import Callback
from foundling.train.callbacks.checkpoint import Checkpoint
from foundling.train.callbacks.judge import Judge
from foundling.train.callbacks.metrics import Metrics
from foundling.train.callbacks.unfreeze import Unfreeze
from foundling.train.dial import default_finetuning_lr
from foundling.train.examples import TaskData, prepare
from foundling.train.finetune_recipe import FinetuneRecipe, read_finetune_recipe
from foundling.train.finetune_report import write_finetune_report
from foundling.train.layers import freeze, lr_factors
from foundling.train.recipe import assignments
from foundling.train.run import Run
from foundling.train.session import enter, is_finished, prepare_once, run_recipe
from foundling.train.settings import Settings, settle_examples
from foundling.train.start import fill, with_dropout
from foundling.train.state import Training, checkpoints


def finetune(recipe: FinetuneRecipe | str | Path, *, resume: bool = False, **overrides: Any) -> Run:
    """Fine-tunes a model from a recipe and returns its run.

    recipe: a recipe file, or a `FinetuneRecipe`. overrides: dotted keys, as in `finetune(file, **{"seed": 2})`.
    resume: go on from the newest checkpoint of the run folder, bit for bit as if never stopped.
    Under `torchrun` each process calls it alike. Raises UserError for whatever a user can mend.
    """
    if not isinstance(recipe, FinetuneRecipe):
        recipe = read_finetune_recipe(recipe, assignments(overrides))
    if recipe.seeds == 1:
        return run_recipe(recipe, Finetuning(), resume=resume)
    return _several_seeds(recipe, resume)


def plan(recipe: FinetuneRecipe) -> Settings:
    """Everything of a run but the training: reads files and base, settles and logs what is open."""
    world, kind = enter(recipe), Finetuning()
    data = prepare_once(recipe, kind, recipe.folder, world)
    return kind.build(recipe, data, recipe.folder, world, None).settings


class Finetuning:
    """What `session.run_recipe` asks of a kind of run."""

    def prepare(self, recipe: FinetuneRecipe, folder: Path) -> TaskData:
        return prepare(recipe, folder)

    def build(
        self, recipe: FinetuneRecipe, data: TaskData, folder: Path, world: World, settings: Settings | None
    ) -> Training:
        samples = ExampleRows(data.rows, recipe.seed)
        dropout = recipe.train.dropout
        config = data.model_config if dropout is None else with_dropout(data.model_config, dropout)
        with torch.device("meta"):
            model: Any = config.build()
        if settings is None:
            settings = world.share(
                settle_examples(
                    recipe, samples, width=data.model_config.width,
                    flops_per_token=model.flops_per_token(samples.row_length),
                    mean_tokens=sum(row.num_tokens for row in data.rows) / len(data.rows),
                    num_sides=1 if data.task.family != "seq2seq" else 2, data_size=world.data_size, device=world.device,
                )
            )  # fmt: skip
        freeze(model, recipe.train)
        return assemble(
            recipe, data, folder, world, settings, model=model, objective=data.task, samples=[samples], any_size=True,
            fill_weights=lambda: fill(model, data.start, recipe.seed),
            adamw_lr=default_finetuning_lr(data.model_config.width, pretrained=recipe.base is not None),
            lr_factors=lr_factors(model, recipe.train.layer_decay),
        )  # fmt: skip

    def callbacks(self, training: Training, identity: dict[str, Any]) -> list[Callback]:
        recipe, task = training.recipe, training.recipe.task
        found: list[Callback] = [Unfreeze()] if recipe.train.unfreeze is not None else []
        if task.dev:
            stop = recipe.train.early_stop
            metric = recipe.evaluate.metric or (stop.metric if stop else None) or training.data.task.metric
            found.append(Judge(metric, stop.patience if stop else None))
        return [*found, Metrics(), Checkpoint(identity)]

    def finish(self, training: Training) -> None:
        if training.best is not None:
            for slot in training.optimizer.slots:
                slot.master.copy_(training.best.masters[slot.name])
            training.optimizer.refresh_copies()
        with nullcontext() if training.best is not None else training.optimizer.averaged():
            model = whole_model(training).to(training.world.device)
        if training.world.is_first:
            _finish(training, model)
        training.world.barrier()


def _finish(training: Training, model: Any) -> None:
    """The best weights, measured on everything that there is, and written. Of a run that was told to stop they are
    not measured: that can take minutes, and it goes on later."""
    data, folder = training.data, training.folder
    task, seconds, wall = data.task, training.clock.seconds(), training.clock.wall()
    stopped = training.stop_signal is not None and not training.is_at_its_end
    judged, answered = {}, {}
    if not stopped:
        task.facts |= task.calibrate(model, data.examples.get("dev", []))
    for split in () if stopped else ("dev", "test"):
        if split in data.examples:
            answered[split] = task.answers(model, data.examples[split])
            judged[split] = judge(task.measured(data.examples[split], answered[split]), with_intervals=True)
    task.finish(model.cpu())
    save_task(model, task, folder / "model", inputs=data.inputs)
    for split, answers in answered.items():
        write_answers(folder / f"answers-{split}.jsonl", [task.describe(e) for e in data.examples[split]], answers)
    write_json(folder / "summary.json", _summary(training, judged, seconds, wall))
    write_finetune_report(folder)


def write_answers(path: Path, examples: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    """Examples with their answers, a line each."""
    lines = (json.dumps({**e, "answer": a}, ensure_ascii=False) for e, a in zip(examples, answers, strict=True))
    write_text(path, "".join(line + "\n" for line in lines))


def _summary(training: Training, judged: dict[str, Judgement], seconds: float, wall: float) -> dict[str, Any]:
    """seconds: of training alone; wall: with the evaluations on the way."""
    metrics, settings = training.metrics, training.settings
    return {
        "finished": training.is_at_its_end,
        "steps": training.step,
        "seed": training.recipe.seed,
        "best_step": training.best.step if training.best else training.step,
        "best_value": training.best.value if training.best else None,
        "tokens": training.num_tokens,
        "seconds": round(seconds, 3),
        "wall_seconds": round(wall, 3),
        "tokens_per_second": metrics.get("mean_tokens_per_second"),
        "weights": sum(p.numel() for p in training.model.parameters()),
        "train": {"loss": metrics.get("loss")},
        "guard": training.guard.counts,
        **{split: found.as_json() for split, found in judged.items()},
        "counts": training.data.counts,
        "facts": training.data.task.facts,
        "settings": settings.as_json(),
    }


def _value_on_dev(run: Run) -> float:
    value = run.summary.get("best_value")
    return -math.inf if value is None else float(value)


def _several_seeds(recipe: FinetuneRecipe, resume: bool) -> Run:
    """A run for each seed in a folder of its own, their figures with mean and spread beside.

    `model/` and the answers are those of the seed that was best on dev (of the first without dev).
    """
    folder, world, runs = recipe.folder, enter(recipe), []
    for seed in range(recipe.seed, recipe.seed + recipe.seeds):
        own = folder / f"seed-{seed}"
        single = recipe.model_copy(update={"seed": seed, "seeds": 1, "out": str(own)})
        if is_finished(own, single) and not checkpoints(own):  # removed to make room; what it learnt of is not known
            logger.info("seed %d: finished already", seed)
            runs.append(Run(own))
            continue
        logger.info("seed %d of %d to %d", seed, recipe.seed, recipe.seed + recipe.seeds - 1)
        goes_on = is_finished(own, single) or (resume and bool(checkpoints(own)))  # of the same data, or it is refused
        runs.append(run_recipe(single, Finetuning(), resume=goes_on))
        if runs[-1].stop_signal is not None:
            return runs[-1]
    if not world.is_first:
        return Run(folder, is_first=False)
    splits = [split for split in ("dev", "test") if split in runs[0].summary]
    best = max(runs, key=_value_on_dev)
    with whole_folder(folder / "model") as temporary:
        shutil.copytree(best.model_dir, temporary, dirs_exist_ok=True)
    for split in splits:
        shutil.copyfile(best.folder / f"answers-{split}.jsonl", folder / f"answers-{split}.jsonl")
    summary = {**best.summary, "best_seed": best.summary["seed"], "seeds": {}}
    for split in splits:
        figures = [{k: v for k, v in run.summary[split].items() if isinstance(v, float)} for run in runs]
        shared = set.intersection(*map(set, figures))  # a label that is true nowhere has figures where it was said
        figures = [{k: v for k, v in found.items() if k in shared} for found in figures]
        summary["seeds"][split] = {name: asdict(spread) for name, spread in over_seeds(figures).items()}
    for key in ("seconds", "wall_seconds"):
        summary[key] = round(sum(run.summary[key] for run in runs), 3)
    write_text(folder / "recipe.yaml", yaml.safe_dump(resolved(recipe), sort_keys=False, allow_unicode=True))
    write_json(folder / "summary.json", summary)
    write_finetune_report(folder)
    return Run(folder)
