"""Search the keys of a recipe, and tell whether the best settings beat it beyond the noise of seeds.

Bad settings end early (successive halving), good ones go on from their checkpoints. Writes runs/NAME: best.yaml,
tune.json, report.html, and the study, which a killed search goes on with.

Example: foundling tune recipes/tune-gpt.yaml settings="\\[corpus.train=corpora/mine]" trials=18
"""

from pathlib import Path
from typing import Annotated

import typer

from foundling.core.log import console


def tune(
    recipe: Annotated[Path, typer.Argument(help="What is searched, a YAML file.", metavar="RECIPE.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="dotted.key=value ...", metavar="[KEY=VALUE ...]")
    ] = None,
) -> None:
    from rich import box
    from rich.table import Table

    from foundling.train.tune import tune as search
    from foundling.train.tune_recipe import read_tune_recipe
    from foundling.train.tune_report import columns_of, rows_of

    read = read_tune_recipe(recipe, tuple(overrides or ()))
    outcome = search(read)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns_of(read, outcome):
        table.add_column(column, justify="right", overflow="fold")
    for row in rows_of(read, outcome)[:10]:
        table.add_row(*row)
    console.print(table)
    best, default = (
        ", ".join(f"{outcome.sign * value:.5g}" for value in values)
        for values in (outcome.best_values, outcome.default_values)
    )
    console.print(f"{outcome.metric} by seed: best settings {best}; the recipe with its `settings` alone {default}")
    words = {"noise": "no more than noise", "better": "a gain beyond noise", "worse": "a loss beyond noise"}
    console.print(f"the difference is {words[outcome.verdict]}")
    console.print(f"  best    {read.folder / 'best.yaml'}\n  report  {read.folder / 'report.html'}")
