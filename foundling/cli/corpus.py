"""`foundling corpus`: build a corpus folder from raw text, look at one, train a classifier for one."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Raw text to a clean corpus folder.", rich_markup_mode="markdown")
classifier = typer.Typer(no_args_is_help=True, help="Classifiers of quality or domain, from your own examples.")
app.add_typer(classifier, name="classifier")


@app.command(
    epilog="Example: `foundling corpus build crawl/ news.jsonl.gz --out corpora/mine steps.quality.min_words=50`"
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List inputs, formats, text fields and steps; build nothing.")
    ] = False,
) -> None:
    """Reads files of every known kind, cleans them, removes duplicates, splits, counts, and says why anything went.

    What it reads: text, Markdown, source code, JSON and JSON lines, CSV, Parquet, HTML, WARC; compressed or not. A
    build that was killed goes on where it was when the command is given again.

    Settings, as key=value: `steps=crawl` (the default) or `steps=plain` for text that is clean already, or a list as
    in `steps=[unicode,quality,exact]`; one value of a step as in `steps.quality.min_words=50`; and text_field, format,
    encoding, valid_fraction, seed, source, domain, workers. `report.html` in the folder shows what every step did.
    """
    from foundling.core.log import console, interactive
    from foundling.corpus.build import build_corpus
    from foundling.corpus.settings import read_settings

    paths, assignments = _parted(sources)
    config = read_settings(assignments)
    if dry_run:
        _print_plan(paths, out, config)
        return
    if interactive():
        corpus = _with_progress(lambda progress: build_corpus(paths, out, config, replace=replace, progress=progress))
    else:
        corpus = build_corpus(paths, out, config, replace=replace)
    _print_figures(corpus)
    console.print(f"[dim]report: {corpus.dir / 'report.html'}[/]", soft_wrap=True)


@app.command(epilog="Example: `foundling corpus report corpora/mine --dropped too_few_words`")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A corpus folder.")],
    dropped: Annotated[
        str | None, typer.Option(metavar="REASON", help="Show examples of a reason, such as too_few_words.")
    ] = None,
    changed: Annotated[
        str | None, typer.Option(metavar="STEP", help="Show what a step changed, such as unicode: gone and new.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many examples to show.")] = 10,
) -> None:
    """Prints what was read, kept and dropped; with --dropped or --changed, real examples of it."""
    from foundling.corpus.folder import open_corpus

    corpus = open_corpus(folder)
    if dropped is None and changed is None:
        _print_figures(corpus)
    if dropped is not None:
        _print_dropped(corpus, dropped, limit)
    if changed is not None:
        _print_changed(corpus, changed, limit)


@classifier.command(
    epilog="Example: `foundling corpus classifier train --examples good=books/ bad=spam/ --out classifiers/quality`"
)
def train(
    out: Annotated[Path, typer.Option(help="The classifier's folder to write.")],
    examples: Annotated[
        list[str], typer.Option(metavar="LABEL=SOURCE", help="A set of examples: files, a folder or a corpus folder.")
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LABEL=SOURCE ...] [key=value ...]", help="More sets of examples; and settings."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a classifier that is there.")] = False,
) -> None:
    """Trains a linear classifier over hashed n-grams of words, and of characters for Chinese and the like.

    A part of the examples is held out and measured. Use it as a step: `{kind: classifier, path: DIR, keep: good}` or
    `{kind: classifier, path: DIR, tag: domain}`. Settings: num_buckets, max_ngram, max_ngram_cjk, max_characters,
    epochs, rate, held_out, max_examples, seed.
    """
    from foundling.core.config import override, validate
    from foundling.core.errors import UserError
    from foundling.corpus.classifier import Config, train_classifier

    settings = [text for text in more or () if text.split("=", 1)[0] in Config.model_fields]
    sets: dict[str, list[str]] = {}
    for text in [*examples, *(text for text in more or () if text not in settings)]:
        label, equals, source = text.partition("=")
        if not (label and equals and source):
            raise UserError("a set of examples must look like label=SOURCE", got=repr(text))
        sets.setdefault(label, []).append(source)
    manifest = train_classifier(
        sets, out, validate(Config, override({}, settings), "classifier settings"), replace=replace
    )
    _print_classifier(manifest["counts"], out)


def _parted(words: list[str]) -> tuple[list[str], list[str]]:
    """(sources, settings): a word that looks like a setting and is no file or glob that matches is a setting."""
    from glob import glob

    from foundling.corpus.settings import is_setting, is_there

    assignments = [word for word in words if is_setting(word) and not is_there(word) and not glob(word)]
    return [word for word in words if word not in assignments], assignments


def _print_plan(sources: list[str], out: Path, config: Any) -> None:
    """What a build would do, as far as the files' names and beginnings tell."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from foundling.core.config import resolved
    from foundling.corpus.inputs import find_inputs, settle
    from foundling.corpus.report import size

    found = find_inputs(sources, config.format, out)
    readers = settle(found, text_field=config.text_field, encoding=config.encoding)
    kinds: dict[tuple[str, str], list[Any]] = {}
    for file in found:
        settings = {k: v for k, v in resolved(readers[file.name]).items() if k != "kind" and v is not None}
        told = ", ".join(f"{key} {value}" for key, value in settings.items())
        kinds.setdefault((readers[file.name].kind, told), []).append(file)
    console = Console(highlight=False)
    table = Table("format", "files", "bytes", "settled", "such as", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:3]:
        column.justify = "right"
    for (kind, told), files in sorted(kinds.items(), key=lambda item: -sum(file.num_bytes for file in item[1])):
        num_bytes = size(sum(file.num_bytes for file in files))
        table.add_row(kind, f"{len(files):,}", num_bytes, told, files[0].name)
    console.print(table)
    for name, problem in getattr(found, "problems", ()):
        console.print(f"{name}: {problem.detail}", markup=False, soft_wrap=True)
    console.print("\nsteps, in this order; thresholds by script: latin/cjk/other", style="dim")
    for number, step in enumerate(config.steps):
        settings = {key: value for key, value in resolved(step).items() if key != "kind"}
        plain = {key: _one(value) for key, value in settings.items()}
        told = ", ".join(f"{key} {value}" for key, value in plain.items() if value not in (None, [], {}))
        console.print(f"[bold]{number:>2} {step.kind}[/]  [dim]{escape(told)}[/]")
    console.print(
        f"\n{len(found):,} files, {size(sum(file.num_bytes for file in found))}; nothing was built", style="bold"
    )


def _one(value: Any) -> Any:
    """A threshold that is the same for every script as one number."""
    if isinstance(value, dict) and set(value) == {"latin", "cjk", "other"}:
        if len(set(value.values())) == 1:
            return value["latin"]
        return "/".join("-" if one is None else f"{one:g}" for one in value.values())
    return value


def _with_progress(work: Any) -> Any:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as SpeedColumn

    from foundling.core.log import console

    columns = (
        TextColumn("corpus"),
        BarColumn(),
        DownloadColumn(),
        SpeedColumn(),
        TextColumn("{task.fields[kept]:,} documents kept"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("corpus", total=None, kept=0)
        return work(lambda done, total, kept: bars.update(task, completed=done, total=total, kept=kept))


def _print_figures(corpus: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from foundling.core.errors import UserError
    from foundling.corpus.report import WORDS, size

    def sizes(sums: dict[str, int], end: str = "") -> tuple[str, str, str]:
        return f"{sums[f'num_documents{end}']:,}", size(sums[f"num_bytes{end}"]), f"{sums[f'num_words{end}']:,}"

    counts = corpus.manifest["counts"]
    if "num_words" not in counts:
        raise UserError(f"{corpus.dir} must tell its words", got="a corpus of an older foundling", do="build it again")
    table = Table("", "documents", "text", "tokens", "changed", "dropped", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:5]:
        column.justify = "right"
    table.add_row("read", *sizes(counts, "_read"))
    for step in counts["steps"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in step["dropped"].items())
        changed = f"{step['num_changed']:,}" if step.get("num_changed") else ""
        table.add_row(step["step"], *sizes(step), changed, reasons)
    for split, sums in counts["splits"].items():
        table.add_row(f"= {split}", *sizes(sums), style="bold")
    console = Console(highlight=False)
    console.print(table)
    console.print(WORDS, style="dim")
    for problem in counts["problems"].values():
        console.print(f"{problem['count']:,} {problem['meaning']}", markup=False)
    console.print(str(corpus.dir), markup=False, soft_wrap=True)


def _print_dropped(corpus: Any, reason: str, limit: int) -> None:
    from itertools import islice

    from rich.console import Console
    from rich.text import Text

    from foundling.core.errors import UserError
    from foundling.corpus.report import reason_meaning
    from foundling.corpus.shards import dropped_rows

    steps = corpus.manifest["counts"]["steps"]
    drops = [(step["step"], key, count) for step in steps for key, count in step["dropped"].items()]
    if not drops:
        raise UserError("--dropped needs a corpus that dropped something", got=f"{corpus.dir}, which dropped nothing")
    asked = [drop for drop in drops if reason in (drop[0], drop[1], f"{drop[0]}.{drop[1]}")]
    if not asked:
        raise _unknown("the reason", reason, sorted({name for step, key, _ in drops for name in (step, key)}))
    console = Console(highlight=False)
    for step, key, count in asked:
        console.print(Text(f"{step} {key}: {count:,} documents", style="bold"))
        console.print(Text(reason_meaning(step, key), style="dim"))
        for row in islice(dropped_rows(corpus.dir, f"{step}.{key}"), limit):
            console.print(Text.assemble("\n", (row["id"], "cyan"), "  ", (row.get("detail") or "", "yellow")))
            console.print(Text(row["sample"] if row["sample"].strip() else "(blank)"))
        console.print()


def _print_changed(corpus: Any, name: str, limit: int) -> None:
    from rich.console import Console
    from rich.text import Text

    from foundling.core.errors import UserError
    from foundling.corpus.diff import pieces, visible

    changing = {step["step"]: step for step in corpus.manifest["counts"]["steps"] if step.get("num_changed")}
    if not changing:
        raise UserError("--changed needs a corpus of which a step changed something", got=str(corpus.dir))
    if name not in changing:
        raise _unknown("the step", name, sorted(changing))
    step = changing[name]
    console = Console(highlight=False)
    told = ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in step["found"].items())
    console.print(
        Text(f"{name}: {step['num_changed']:,} documents changed" + (f" ({told})" if told else "")), style="bold"
    )
    styles = {"same": "", "gone": "red strike", "new": "green"}
    # Where there is no colour, brackets say what went and what came.
    marks = {"same": ("", ""), "gone": ("[-", "-]"), "new": ("{+", "+}")} if console.color_system is None else {}
    for example in step["changes"][:limit]:
        console.print(Text(f"\n{example['id']}", style="cyan"))
        text = Text()
        for what, piece in pieces(example["before"], example["after"]):
            before, after = marks.get(what, ("", ""))
            text.append(f"{before}{piece if what == 'same' else visible(piece)}{after}", styles[what])
        console.print(text)


def _unknown(what: str, got: str, known: list[str]) -> Exception:
    from foundling.core.errors import UserError
    from foundling.core.registry import nearest

    near = nearest(got, known)
    return UserError(
        f"{what} must be one that this corpus has ({', '.join(known)})",
        got=repr(got),
        do=f"did you mean {near!r}?" if near else None,
    )


def _print_classifier(counts: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("label", "examples", "held out", "precision", "recall", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, figures in counts["classes"].items():
        shares = (f"{figures[name]:.3f}" for name in ("precision", "recall"))
        table.add_row(label, f"{counts['num_examples'][label]:,}", f"{figures['num_held_out']:,}", *shares)
    console = Console(highlight=False)
    console.print(table)
    low, high = counts["accuracy_interval"]
    console.print(
        f"accuracy {counts['accuracy']:.3f} ({low:.3f} to {high:.3f} at 95 %) on {counts['num_held_out']:,} examples "
        f"held out, log loss {counts['log_loss_nats']:.3f}",
        markup=False,
        soft_wrap=True,
    )
    console.print(str(out), markup=False, soft_wrap=True)
