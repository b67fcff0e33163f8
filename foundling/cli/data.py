"""`foundling data`: what a model will see of its text."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from foundling.train.show import Look, Piece

app = typer.Typer(no_args_is_help=True, help="What a model will see of its text.", rich_markup_mode="markdown")

_STYLES = {"special": "magenta", "end": "bold red", "beyond": "green"}


@app.callback()
def data() -> None:
    """What a model will see of its text."""


@app.command(
    epilog="Example: `foundling data show recipes/gpt-mini.yaml corpus.train=books/ --rows 2 --html rows.html`"
)
def show(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="dotted.key=value ...", metavar="[KEY=VALUE ...]")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")] = 4,
    first: Annotated[int, typer.Option(min=0, help="The first sample to show.")] = 0,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page that stands alone, instead of printing.")
    ] = None,
) -> None:
    """Shows rows as the objective gives them to the model: tokens, targets, segments, document ends, positions.

    Makes corpus, tokenizer and tokens as `pretrain` does, and trains nothing.
    """
    from foundling.core.errors import UserError
    from foundling.train.recipe import read_recipe
    from foundling.train.show import look, write_page

    if html is not None and (html.is_dir() or not html.absolute().parent.is_dir()):
        raise UserError("--html must name a file in a folder that exists", got=str(html))
    found = look(read_recipe(recipe, tuple(overrides or ())), first=first, num_rows=rows)
    if html is None:
        print_look(found, Console(highlight=False))
    else:
        write_page(found, html)


def print_look(found: "Look", console: Console) -> None:
    """The figures, then each row: lines of tokens with the position of their first, targets behind an arrow."""
    for number, what in found.facts:
        console.print(Text.assemble((f"{number:>12}", "bold"), f"  {what}"))
    for row in found.rows:
        console.print(Text.assemble("\n", (row.title, "bold"), "  ", (" · ".join(row.facts), "dim")))
        for section in row.sections:
            console.print(Text(f"{section.title}, {section.num_read}", style="dim"))
            for line in _lines(section.pieces, max(20, console.width - 9)):
                console.print(line, no_wrap=True, crop=False, soft_wrap=True)


def _lines(pieces: "Iterable[Piece]", width: int) -> Iterable[Text]:
    """Lines of at most `width` cells behind the position of their first token."""
    line, used = Text(), 0
    for number, piece in enumerate(pieces):
        shown = _shown(piece, number)
        cells = cell_len(shown.plain)
        if used and used + cells > width:
            yield line
            line, used = Text(), 0
        if not used:
            line.append(f"{piece.position:>7}  ", style="dim")
        line.append_text(shown)
        used += cells
    if used:
        yield line


def _shown(piece: "Piece", number: int) -> Text:
    style = _STYLES.get(piece.kind, "cyan" if number % 2 else "default")
    text = Text(piece.text, style=f"{style} underline" if piece.asked else style)
    if piece.target is not None:
        text.stylize("reverse yellow")
        text.append(f"→{piece.target.strip()}", style="bold green")
    if piece.rank:
        text.append(f"({piece.rank})", style="dim")
    return text
