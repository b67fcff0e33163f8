"""Let a fine-tuned model answer examples: a line of JSON for each, in their order.

Examples come as in the task's files (JSON lines, CSV, Parquet, ...); from standard input (-) as JSON lines, or as
plain lines where the task reads one text.

task.KEY=VALUE changes a setting of the task for these answers: abstain_below, beams, num_answers, fields, ... With
task.bad_rows=skip a row that makes no example gets the line {"left_out": REASON} instead of ending the command.

Example: foundling predict runs/hotel-reviews --input reviews.jsonl --out answers.jsonl task.abstain_below=0.6
"""

import json
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A fine-tuned run or its model folder.")],
    input: Annotated[str, typer.Option(metavar="FILE", help="Examples; - reads JSON lines from standard input.")],
    settings: Annotated[list[str] | None, typer.Argument(help="task.key=value ...", metavar="[KEY=VALUE ...]")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the answers there, whole or not at all.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16"],
        typer.Option(help="Of the weights; bf16: faster where the processor has it, probabilities to two digits."),
    ] = "fp32",
    keep: Annotated[bool, typer.Option("--keep", help="Write each `example` as it came beside its `answer`.")] = False,
) -> None:
    """Writes an answer for each example to standard output, or to a file."""
    import torch

    from foundling.core.config import override
    from foundling.core.errors import UserError
    from foundling.core.files import write_text
    from foundling.serve.load import load
    from foundling.tasks.base import RowFault
    from foundling.tasks.files import examples_of, read_records

    if wrong := [one for one in settings or () if not one.startswith("task.")]:
        raise UserError("a setting must be one of the task, task.KEY=VALUE", got=wrong[0])
    changes = override({}, settings or ()).get("task", {})
    loaded = load(model, dtype=torch.bfloat16 if precision == "bf16" else torch.float32, task=changes)
    if loaded.task is None:
        raise UserError("MODEL must be fine-tuned for a task", got=str(model), do="foundling finetune makes one")
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise UserError("--out must name a file in a folder that exists", got=str(out))
    config = loaded.task.config
    if input == "-":
        if unread := sorted({"format", "bad_rows"} & changes.keys()):
            raise UserError(f"task.{unread[0]} is of a file", got="--input -", do="leave it out, or name a file")
        asked, kept = tee(_examples(config, _lines(sys.stdin.buffer)))
    else:  # all of a file first, so that what is wrong with it is told before anything is computed
        records = read_records(input, config.format)
        if not records.records and not records.faults:
            raise UserError("--input must hold an example", got=f"{input}, which is empty")
        on_bad = changes.get("bad_rows", "error")
        asked, kept = tee(examples_of(records, partial(_made, config, keeps_faults=on_bad == "skip"), on_bad))
    answers = loaded.answers_to(example for _, example in asked if not isinstance(example, RowFault))
    said = (
        (own, {"left_out": str(example)} if isinstance(example, RowFault) else next(answers)) for own, example in kept
    )
    lines = (
        json.dumps({"example": own, "answer": answer} if keep else answer, ensure_ascii=False) for own, answer in said
    )
    if out is not None:
        write_text(out, "".join(line + "\n" for line in lines))
        return
    for line in lines:
        sys.stdout.buffer.write(line.encode() + b"\n")
        sys.stdout.buffer.flush()


def _made(config: Any, data: Any, *, keeps_faults: bool) -> tuple[Any, Any]:
    """A row and the example that it makes; or, where these are kept, what is wrong with it, so that it keeps its
    line."""
    from foundling.core.log import logger
    from foundling.tasks.base import RowFault

    try:
        return data, config.example(data, known=False)
    except RowFault as fault:
        if not keeps_faults:
            raise
        logger.warning("a row is left out: %s", fault)
        return data, fault


def _examples(config: Any, lines: Iterable[tuple[int, Any]]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each line's fields, and the example that they make."""
    from foundling.core.errors import UserError
    from foundling.tasks.base import RowFault

    for number, line in lines:
        data = config.of_text(line) if isinstance(line, str) else line
        try:
            yield data, config.example(data, known=False)
        except RowFault as fault:
            raise UserError(f"line {number}: {fault}") from None


def _lines(file: Any) -> Iterator[tuple[int, Any]]:
    """Each line that is not empty, by its number: as JSON, or as the text that it is."""
    from foundling.core.errors import UserError
    from foundling.tasks.formats.base import is_sound

    for number, line in enumerate(file, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(f"line {number} must be UTF-8 text", got=str(error)) from None
        if not text:
            continue
        if not text.startswith("{"):
            yield number, text
            continue
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"line {number} must be JSON", got=str(error)) from None
        if not is_sound(data):
            raise UserError(f"line {number} must hold whole characters", got="half of a surrogate pair")
        yield number, data
