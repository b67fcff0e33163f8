"""Scores a model on text that it never saw: a table by source, and JSON if asked for.

Suites: perplexity (of text, by source), pseudo-perplexity (of models that read both sides), minimal-pairs (which of
two sentences is more likely, BLiMP's format). Settings of the suite are given as key=value; of perplexity: row_length,
context, split, format, text_field; of pseudo-perplexity: row_length, tokens, split; of minimal-pairs: by, limit.

Example: foundling evaluate runs/demo --suite perplexity --data corpora/mine --data news.jsonl.gz --json figures.json
"""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run folder, a model folder or a Hugging Face folder.")
    ],
    data: Annotated[
        list[Path],
        typer.Option(help="A corpus folder, or a file or folder of text (.txt, .jsonl, .gz, ...); repeatable."),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the suite.", show_default=False)
    ] = None,
    suite: Annotated[str, typer.Option(help="How the model is examined.")] = "perplexity",
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
    order: Annotated[int, typer.Option(help="Tokens of the baseline's longest n-gram.")] = 5,
) -> None:
    """Examines a model with a suite and prints the table to standard output."""
    from foundling.core.config import override, validate
    from foundling.core.errors import UserError
    from foundling.core.files import write_json
    from foundling.core.log import console
    from foundling.core.registry import load_part
    from foundling.evaluation.baseline import train_baseline
    from foundling.evaluation.suites.base import FOLDER, Subject
    from foundling.evaluation.texts import read_texts
    from foundling.serve.language_model import LanguageModel
    from foundling.serve.load import load

    kind = suite.replace("-", "_")
    config = validate(load_part(FOLDER, kind).Config, {"kind": kind, **override({}, settings or [])}, suite)
    if json is not None and (json.is_dir() or not json.absolute().parent.is_dir()):
        raise UserError("--json must name a file in a folder that exists", got=str(json))
    if baseline not in (None, "ngram"):
        raise UserError("--baseline must be ngram", got=repr(baseline))
    lm = load(model)
    ngram = None
    if baseline is not None:
        texts = (text for _, text in read_texts(baseline_data, split="train")) if baseline_data else ()
        ngram = train_baseline(lm.tokenizer, run=None if baseline_data else model, texts=texts, order=order)
    scorer = lm.objective if hasattr(lm.objective, "text_batch") else None
    predicts_text = isinstance(lm, LanguageModel)
    subject = Subject(lm.model, lm.tokenizer, lm.config.max_positions, scorer, predicts_text, ngram)
    with console.status(f"{suite} of {model}"):
        report = config.build().run(subject, data)
    if json is not None:
        write_json(json, {"model": str(model), "suite": suite, "data": [str(path) for path in data], **report.figures})
    _show(report.columns, report.rows)


def _show(columns: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0)
    for number, row in enumerate(rows):
        last = number == len(rows) - 1
        table.add_row(*(Text(cell) for cell in row), style="bold" if last else "", end_section=number == len(rows) - 2)
    console = Console(highlight=False)
    width = console.measure(table).minimum  # in a narrow terminal the names are broken, and no figure is cut
    console.print(table, width=max(width, console.width), crop=False, soft_wrap=False)
