"""Scores a model on what it never saw: a table, and JSON if asked for.

Suites: task (examples, by a fine-tuned model's own metrics with 95 % intervals; the default for such a model),
perplexity (of text, by source; the default for others), pseudo-perplexity (of models that read both sides),
pretext (what a model of any family was pretrained to do, such as finding masked words, on other text), minimal-pairs
(which of two sentences is more likely, BLiMP's format). Settings of the suite are given as key=value; of
perplexity: row_length, context, split, format, text_field; of pseudo-perplexity: row_length, tokens, split; of
pretext: objective, row_length, tokens, split; of minimal-pairs: by, limit; of task: format, bad_rows.

With --compare a second model answers the same data, and each difference is told from noise by a paired bootstrap.

Example: foundling evaluate runs/demo --suite perplexity --data corpora/mine --data news.jsonl.gz --json figures.json
Example: foundling evaluate runs/reviews runs/reviews-large --data test.jsonl --compare
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

_LEAST_NAME = 24
"""Characters of a row's name in the narrowest terminal."""
_ORDER = 5

if TYPE_CHECKING:
    from foundling.evaluation.suites.base import Report, Subject


def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run folder, a model folder or a Hugging Face folder.")
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            help="A corpus folder, a file or folder of text (.txt, .jsonl, .gz, ...), or of examples; repeatable."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] KEY=VALUE",
            help="Settings of the suite; before them, with --compare, the other model.",
            show_default=False,
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="How the model is examined.", show_default="task or perplexity")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Examine two models on the same data: is the second better?")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures there, whole or not at all.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="ngram", help="Show a Kneser-Ney n-gram model beside, trained on the run's own tokens."),
    ] = None,
    baseline_data: Annotated[
        list[Path] | None,
        typer.Option(help="Train the baseline on this text instead (a corpus folder, or files); repeatable."),
    ] = None,
    order: Annotated[int, typer.Option(help="Tokens of the baseline's longest n-gram.")] = _ORDER,
) -> None:
    """Examines a model with a suite and prints the table to standard output."""
    from foundling.core.errors import UserError
    from foundling.core.files import write_json
    from foundling.core.log import console
    from foundling.evaluation.baseline import train_baseline
    from foundling.evaluation.texts import read_texts
    from foundling.evaluation.versus import need_one_task, versus
    from foundling.serve.load import load

    _check(data, json, baseline, baseline_data or [], order, compare)
    models, given = _models(model, settings or [], compare)
    kind = suite or _fitting(models[0])
    built = _config(kind, given, models[0]).build()
    if compare and not built.comparable:
        raise UserError(
            "--compare must be of a suite that measures examples one by one: task, minimal-pairs",
            got=kind,
            do="evaluate each model by itself",
        )
    if baseline and kind == "task":
        raise UserError("--baseline is of text that is scored", got="--suite task", do="leave it out")
    loaded = [load(path) for path in models]
    lm, ngram = loaded[0], None
    if baseline is not None:
        texts = (text for _, text in read_texts(baseline_data, split="train")) if baseline_data else ()
        ngram = train_baseline(lm.tokenizer, run=None if baseline_data else model, texts=texts, order=order)
    subjects = [_subject(path, one, kind, ngram) for path, one in zip(models, loaded, strict=True)]
    if compare and kind == "task":
        need_one_task(subjects[0], subjects[1])
    reports = []
    for path, subject in zip(models, subjects, strict=True):
        with console.status(f"{kind} of {path}"):
            reports.append(built.run(subject, data))
    report = versus(reports[0], reports[1]) if compare else reports[0]
    if json is not None:
        named = {"models": [str(path) for path in models]} if compare else {"model": str(model)}
        write_json(json, {**named, "suite": kind, "data": [str(path) for path in data], **report.figures})
    if compare:
        print(f"A  {models[0]}\nB  {models[1]}")
    _show(report)


def _check(
    data: list[Path], json: Path | None, baseline: str | None, baseline_data: list[Path], order: int, compare: bool
) -> None:
    """UserError: options that name nothing, or do not go together."""
    from foundling.core.errors import UserError

    if json is not None and (json.is_dir() or not json.absolute().parent.is_dir()):
        raise UserError("--json must name a file in a folder that exists", got=str(json))
    if baseline not in (None, "ngram"):
        raise UserError("--baseline must be ngram", got=repr(baseline))
    if baseline is None and (baseline_data or order != _ORDER):
        raise UserError("--baseline-data and --order are of a baseline", do="add --baseline ngram")
    if missing := [path for path in (*data, *baseline_data) if not (path.exists() or set("*?[:") & set(str(path)))]:
        raise UserError("data must exist", got=str(missing[0]))
    if compare and baseline:
        raise UserError("--baseline stands beside one model", got="--compare", do="leave one of them out")


def _models(model: Path, rest: list[str], compare: bool) -> tuple[list[Path], list[str]]:
    """The models, and the settings that follow them."""
    from foundling.core.errors import UserError

    given = [one for one in rest if "=" in one and not Path(one).is_dir()]
    others = [Path(one) for one in rest if one not in given]
    if compare and len(others) != 1:
        raise UserError(
            "--compare must be of two models", got=len(others) + 1, do="foundling evaluate A B --data FILE --compare"
        )
    if others and not compare:
        raise UserError(
            "settings must look like key=value",
            got=str(others[0]),
            do="add --compare if it is a second model",
        )
    return [model, *others], given


def _fitting(model: Path) -> str:
    """The suite of a model for which none was named."""
    from foundling.models.hub import find_model_dir
    from foundling.tasks.folder import is_task_folder

    return "task" if is_task_folder(find_model_dir(model)) else "perplexity"


def _config(suite: str, settings: list[str], model: Path) -> Any:
    """A suite's settings; of pretext the run's own objective, unless they say otherwise."""
    from foundling.core.config import override, read_yaml, validate
    from foundling.core.registry import load_part
    from foundling.evaluation.suites.base import FOLDER

    kind = suite.replace("-", "_")
    recipe = model / "recipe.yaml"
    known = {"objective": read_yaml(recipe).get("objective")} if kind == "pretext" and recipe.is_file() else {}
    return validate(load_part(FOLDER, kind).Config, {"kind": kind, **override(known, settings)}, suite)


def _subject(path: Path, lm: Any, suite: str, baseline: Any) -> "Subject":
    from foundling.core.errors import UserError
    from foundling.core.log import logger
    from foundling.evaluation.suites.base import Subject
    from foundling.evaluation.training_text import training_streams
    from foundling.serve.language_model import LanguageModel

    scorer = None
    if suite != "task":
        scorer = lm.objective if hasattr(lm.objective, "text_batch") else None
    reads_on = isinstance(lm, LanguageModel)
    if suite != "task" and getattr(lm.config, "prefix", False):
        logger.warning("%s was pretrained with prefixes; here it reads all text in order, without one", path)
    try:
        streams = training_streams(path, lm.tokenizer) if "perplexity" in suite else []
    except UserError as error:
        logger.warning("whether the texts were trained on is not known: %s", error)
        streams = []
    return Subject(
        lm.model, lm.tokenizer, lm.config.max_positions, scorer, reads_on, baseline, lm.task, streams,
        lm.config.objectives,
    )  # fmt: skip


def _show(report: "Report") -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def table(name_width: int) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(report.columns):
            if number == 0:
                made.add_column(column, width=name_width, overflow="fold")
            else:
                made.add_column(column, justify="right", no_wrap=True)
        for number, row in enumerate(report.rows):
            to_total = len(report.rows) - 1 - number if report.has_total else -1
            made.add_row(*map(Text, row), style="bold" if to_total == 0 else "", end_section=to_total == 1)
        return made

    console = Console(highlight=False)
    longest = max(cell_len(name) for name in (report.columns[0], *(row[0] for row in report.rows)))
    needed = console.measure(table(longest), options=console.options.update(width=10_000)).maximum
    # in a narrow terminal names are broken, and no figure is cut; what is no terminal gets whole lines
    over = max(0, needed - console.width) if console.is_terminal else 0
    name_width = max(min(longest, _LEAST_NAME), longest - over)
    console.width = max(console.width, needed - (longest - name_width))
    console.print(table(name_width), crop=False, soft_wrap=False)
    for note in report.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)
