"""One logger, one console, and the sinks that metrics go to."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console

from foundling.core.errors import UserError
from foundling.core.files import write_text

logger = logging.getLogger("foundling")
"""The package's only logger. Libraries stay silent until `setup` is called, by the command line alone."""

console = Console(stderr=True, highlight=False)
"""Where people look: standard error, so that standard output stays for results."""


class _ConsoleHandler(logging.Handler):
    """Messages as they are, one a line, above any progress bar; warnings in colour."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        console.print(self.format(record), style=style, markup=False, soft_wrap=True)


def setup(level: str = "INFO") -> None:
    """Shows the package's messages on the console; called once, by the command line."""
    logger.setLevel(level)
    if not logger.handlers:
        logger.addHandler(_ConsoleHandler())
        logger.propagate = False


class Sink(Protocol):
    """Where a run's figures go. `step` counts optimizer steps, `values` are plain numbers or text."""

    def write(self, step: int, values: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """`metrics.jsonl`: one JSON object a line, flushed at once, so a killed run keeps what it wrote.

    On resume, lines after `keep_until_step` are cut: the resumed run writes them again.
    """

    def __init__(self, path: Path, keep_until_step: int | None = None) -> None:
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if keep_until_step is not None and _step_of(line) <= keep_until_step]
            write_text(path, "".join(line + "\n" for line in kept))
        self._path = path
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, step: int, values: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps({"step": step, **values}, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path} could not be written: {error.strerror or error}") from error

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf  # a line cut short by a kill


def interactive() -> bool:
    """Whether a person watches: progress is drawn for them only."""
    return sys.stderr.isatty()
