"""Fine-tune a model from a recipe: a pretrained base and files of examples.

Writes runs/NAME: the resolved recipe, metrics.jsonl, the best weights in model/, the answers to dev and test,
summary.json and report.html. SIGTERM and SIGINT write a checkpoint and end the run; --resume goes on, bit for bit.

Example: foundling finetune recipes/classification.yaml base=runs/bert task.train=train.jsonl task.dev=dev.jsonl
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from foundling.core.log import console


def finetune(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="dotted.key=value ...", metavar="[KEY=VALUE ...]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe and files, show the plan, train nothing.")
    ] = False,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Suggest a learning rate: a short run with rising rates, in NAME-find-lr.")
    ] = False,
) -> None:
    import yaml

    from foundling.core.config import resolved
    from foundling.train.finetune import finetune as train
    from foundling.train.finetune import plan
    from foundling.train.finetune_recipe import read_finetune_recipe

    read = read_finetune_recipe(recipe, tuple(overrides or ()))
    if dry_run:
        console.print(yaml.safe_dump(resolved(read), sort_keys=False, allow_unicode=True).rstrip())
        plan(read)
        return
    if find_lr:
        from foundling.cli._find_lr import tell_lr
        from foundling.train.finetune import Finetuning

        tell_lr(read, Finetuning(), resume)
        return
    run = train(read, resume=resume)
    if run.stop_signal is not None:
        if run.is_first:
            console.print(f"stopped at step {run.summary['steps']}; go on with --resume")
        raise typer.Exit(128 + run.stop_signal)
    if not run.is_first:
        return
    summary, tell = run.summary, partial(console.print, soft_wrap=True)
    of_seed = f", of seed {summary['best_seed']}, the best of {read.seeds}" if "best_seed" in summary else ""
    tell(f"done after {summary['seconds']:.0f} s of training; weights of step {summary['best_step']:,}{of_seed}")
    for split in ("dev", "test"):
        if split in summary:
            tell(f"  {split:<6}  {_figures(summary[split])}")
            for name, spread in list(summary.get("seeds", {}).get(split, {}).items())[:1]:
                tell(f"  {'':<6}  {name} of {read.seeds} seeds: {spread['mean']:.4f} ± {spread['std']:.4f}")
    settings = [found["settings"] for split in ("test", "dev") if (found := summary.get(split))]
    for setting in settings[0].values() if settings else ():
        tell(f"  by      {setting}")
    tell(f"  run     {run.folder}\n  model   {run.model_dir}\n  report  {run.folder / 'report.html'}")
    tell(f"next: foundling predict {run.folder} --input FILE.jsonl")


def _figures(found: dict) -> str:
    """The first figures with their intervals."""
    shown = []
    for name in list(found.get("intervals", {}))[:3]:
        low, high = found["intervals"][name]
        shown.append(f"{name} {found[name]:.4f} ({low:.4f} to {high:.4f})")
    return ", ".join(shown)
