"""Train a language model from a recipe.

Writes runs/NAME: the resolved recipe, metrics.jsonl, checkpoints, the model in Hugging Face's layout, summary.json and
report.html. SIGTERM and SIGINT write a checkpoint and end the run; --resume goes on, bit for bit.

On several GPUs: torchrun --nproc-per-node 8 -m foundling pretrain RECIPE.yaml

Example: foundling pretrain recipes/gpt-mini.yaml corpus.train=books/ train.length="5M tokens"
"""

from pathlib import Path
from typing import Annotated

import typer

from foundling.core.log import console


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="dotted.key=value ...", metavar="[KEY=VALUE ...]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe and data, show the plan, train nothing.")
    ] = False,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Suggest a learning rate: a short run with rising rates, in NAME-find-lr.")
    ] = False,
) -> None:
    import yaml

    from foundling.core.config import resolved
    from foundling.train.recipe import read_recipe

    read = read_recipe(recipe, tuple(overrides or ()))
    if dry_run:
        from foundling.train.pretrain import plan

        console.print(yaml.safe_dump(resolved(read), sort_keys=False, allow_unicode=True).rstrip())
        plan(read)
        return
    if find_lr:
        from foundling.cli._find_lr import tell_lr
        from foundling.train.pretrain import Pretraining

        tell_lr(read, Pretraining(), resume)
        return
    from foundling.train.pretrain import pretrain as train

    run = train(read, resume=resume)
    if run.stop_signal is not None:
        if run.is_first:
            console.print(f"stopped at step {run.summary['steps']}; go on with --resume")
        raise typer.Exit(128 + run.stop_signal)
    if not run.is_first:
        return
    valid = run.summary["valid"]
    bits, seconds = valid.get("bits_per_byte"), run.summary["seconds"]
    score = f"{valid['loss']:.4f} nats a target" if bits is None else f"{bits:.4f} bits per byte"
    whose = " with the averaged weights" if read.train.average is not None else ""
    console.print(f"done: {score} on text it never saw{whose}, after {seconds:.0f} s of training")
    console.print(f"  run     {run.folder}\n  model   {run.model_dir}\n  report  {run.folder / 'report.html'}")
