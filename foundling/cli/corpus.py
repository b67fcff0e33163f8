"""`foundling corpus`: build a corpus folder from raw text, and look at one."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Raw text to a clean corpus folder.", rich_markup_mode="markdown")


@app.command(
    epilog="Example: `foundling corpus build books/ news.jsonl.gz --out corpora/mine steps.1.min_characters=200`"
)
def build(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE... [key=value ...]", help="Files, folders, globs; and settings as key=value."),
    ],
    out: Annotated[Path, typer.Option(help="The corpus folder to write.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a corpus there that was made from other inputs or settings.")
    ] = False,
) -> None:
    """Reads .txt, .md, .rst, source code and .jsonl (also .gz, .zst), cleans, removes duplicates, splits, counts.

    Settings: text_field, format, valid_fraction, seed, steps, source, domain, workers. A list of steps is given as a
    whole (`steps=[unicode,exact]`) or one value of it (`steps.1.min_characters=200`).
    """
    from foundling.core.config import override, resolved, validate
    from foundling.core.log import console, interactive
    from foundling.corpus.build import Config, build_corpus

    assignments = [text for text in sources if "=" in text and not Path(text).exists()]
    paths = [text for text in sources if text not in assignments]
    base = {"steps": resolved(Config())["steps"]} if any(text.startswith("steps.") for text in assignments) else {}
    config = validate(Config, override(base, assignments), "corpus")
    if interactive():
        corpus = _with_progress(lambda progress: build_corpus(paths, out, config, replace=replace, progress=progress))
    else:
        corpus = build_corpus(paths, out, config, replace=replace)
    _print_figures(corpus)
    console.print(f"[dim]report: {corpus.dir / 'report.html'}[/]", soft_wrap=True)


@app.command(epilog="Example: `foundling corpus report corpora/mine --dropped too_short`")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A corpus folder.")],
    dropped: Annotated[
        str | None, typer.Option(metavar="REASON", help="Show examples of a reason, such as too_short.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many examples to show.")] = 10,
) -> None:
    """Prints what was read, kept and dropped; with --dropped, the beginnings of dropped documents."""
    from foundling.corpus.folder import open_corpus

    corpus = open_corpus(folder)
    if dropped is None:
        _print_figures(corpus)
    else:
        _print_dropped(corpus, dropped, limit)


def _with_progress(work: Any) -> Any:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from foundling.core.log import console

    columns = (
        TextColumn("corpus"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[kept]:,} documents kept"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("corpus", total=None, kept=0)
        return work(lambda done, total, kept: bars.update(task, completed=done, total=total, kept=kept))


def _print_figures(corpus: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from foundling.corpus.report import size

    counts = corpus.manifest["counts"]
    table = Table("", "documents", "text", "dropped", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:3]:
        column.justify = "right"
    table.add_row("read", f"{counts['num_documents_read']:,}", size(counts["num_bytes_read"]))
    for step in counts["steps"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in step["dropped"].items())
        table.add_row(step["step"], f"{step['num_documents']:,}", size(step["num_bytes"]), reasons)
    for split, pair in counts["splits"].items():
        table.add_row(f"= {split}", f"{pair['num_documents']:,}", size(pair["num_bytes"]), style="bold")
    console = Console(highlight=False)
    console.print(table)
    for problem in counts["problems"].values():
        console.print(f"{problem['count']:,} {problem['meaning']}", markup=False)
    console.print(str(corpus.dir), markup=False, soft_wrap=True)


def _print_dropped(corpus: Any, reason: str, limit: int) -> None:
    from itertools import islice

    from rich.console import Console
    from rich.text import Text

    from foundling.core.errors import UserError
    from foundling.core.registry import nearest
    from foundling.corpus.report import reason_meaning
    from foundling.corpus.shards import dropped_rows

    if not any(step["dropped"] for step in corpus.manifest["counts"]["steps"]):
        raise UserError("--dropped needs a corpus that dropped something", got=f"{corpus.dir}, which dropped nothing")
    found = {
        name: (step["step"], key, count)
        for step in corpus.manifest["counts"]["steps"]
        for key, count in step["dropped"].items()
        for name in (step["step"], key, f"{step['step']}.{key}")
    }
    if reason not in found:
        known = sorted({key for _, key, _ in found.values()})
        near = nearest(reason, known)
        raise UserError(
            f"the reason must be one that this corpus has ({', '.join(known)})",
            got=repr(reason),
            do=f"did you mean {near!r}?" if near else None,
        )
    step, key, count = found[reason]
    console = Console(highlight=False)
    console.print(Text(f"{step} {key}: {count:,} documents", style="bold"))
    console.print(Text(reason_meaning(step, key), style="dim"))
    for row in islice(dropped_rows(corpus.dir, reason), limit):
        console.print(Text(f"\n{row['id']}", style="cyan"))
        console.print(Text(row["sample"] if row["sample"].strip() else "(blank)"))
