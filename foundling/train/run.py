"""A finished (or stopped) run, as Python sees it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from foundling.core.files import read_json


@dataclass(frozen=True)
class Run:
    """A run folder.

    >>> run = foundling.pretrain("recipes/gpt-mini.yaml")     # doctest: +SKIP
    >>> run.summary["valid"]["bits_per_byte"]                 # doctest: +SKIP
    """

    folder: Path
    stop_signal: int | None = None
    """The signal that stopped the run before its last step, or None."""
    is_first: bool = True
    """Whether this process is the one that writes and tells, of those that trained together."""

    @property
    def model_dir(self) -> Path:
        """The model folder in Hugging Face's layout."""
        return self.folder / "model"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The run's last figures, as in `summary.json`."""
        return read_json(self.folder / "summary.json")

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`, in order."""
        text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]
