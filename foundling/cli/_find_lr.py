"""`--find-lr` of the verbs that train."""

from typing import Any

import typer

from foundling.core.errors import UserError
from foundling.core.log import console


def tell_lr(recipe: Any, kind: Any, resume: bool) -> None:
    """Runs the range test and says in one line which rate it suggests."""
    from foundling.train.find_lr import find_lr

    if resume:
        raise UserError("--find-lr begins a short run of its own", got="--resume beside it", do="leave one of them out")
    found = find_lr(recipe, kind)
    if found is None:
        raise typer.Exit(130)
    if not found.is_first:
        return
    console.print(
        f"suggested: optimizer.lr={found.suggested:g} (the loss falls fastest at {found.steepest:.2g} and is lowest at "
        f"{found.lowest:.2g}{'; trained weights take a tenth of that' if found.trained else ''})",
        soft_wrap=True,
    )
    console.print(f"  rates   {found.folder / 'rates.csv'}\n  report  {found.folder / 'report.html'}", soft_wrap=True)
