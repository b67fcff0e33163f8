"""One logger, one console, and the sinks that metrics go to."""

import json
import logging
import sys
from functools import cache
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


@cache
def warn_once(text: str) -> None:
    """A warning that several parts of one process may come to."""
    logger.warning("%s", text)


class Sink(Protocol):
    """Where a run's figures go. `step` counts optimizer steps, `values` are plain numbers or text."""

    def write(self, step: int, values: dict[str, Any]) -> None: ...

    def rewind(self, step: int) -> None:
        """The run went back to this step; what was written of later ones no longer counts."""
        ...

    def close(self) -> None: ...


class JsonLines:
    """`metrics.jsonl`: one JSON object a line, flushed at once, so a killed run keeps what it wrote.

    On resume, lines beyond those that the checkpoint knows of are cut: the resumed run writes them again.
    """

    def __init__(self, path: Path, num_kept: int = 0) -> None:
        """num_kept: lines at the beginning of an older file that stay."""
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            write_text(path, "".join(line + "\n" for line in lines[:num_kept]))
        self._path = path
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, step: int, values: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps({"step": step, **values}, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path} could not be written: {error.strerror or error}") from error

    def rewind(self, step: int) -> None:
        """Nothing is cut: the line of the rewind tells which of those before it no longer count."""

    def close(self) -> None:
        self._file.close()


def interactive() -> bool:
    """Whether a person watches: progress is drawn for them only."""
    return sys.stderr.isatty()
