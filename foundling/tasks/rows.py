"""Examples as rows: what a task's head reads, what is true there, and the order in which they are trained on."""

# Shapes: T = tokens of a row, M = places that the head reads, R = rows, N = packed tokens.

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from foundling.core.errors import UserError
from foundling.data.batch import Batch
from foundling.data.order import Order
from foundling.data.rows import Row


@dataclass(frozen=True)
class TaskRow(Row):
    """An example as tokens, or a window of one that is too long."""

    example: int = 0
    """Its number among the examples."""
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Tokens whose hidden states the head reads, in order, int64 [M]."""
    targets: np.ndarray | None = None
    """What is true at each place, int64 [M]; None: the truth is of the row, or unknown."""
    truth: np.ndarray | None = None
    """What is true of the row as a whole; its shape is the task's."""


class ExampleRows:
    """`rows[i]` is sample i of an endless order: every epoch passes through all rows once, in an order of its own."""

    def __init__(self, rows: Sequence[Row], seed: int) -> None:
        if not rows:
            raise UserError("there must be examples to train on", got="none")
        self._rows = rows
        self._order = Order([len(rows)], [1.0], seed)
        self.row_length = max(row.num_tokens for row in rows)
        self.rows_per_stream = [len(rows)]

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def __getitem__(self, sample: int) -> Row:
        return replace(self._rows[self._order[sample][1]], sample=sample)


def pack(rows: Sequence[Row]) -> Batch:
    """Rows to a packed batch whose targets are those of the rows' places (0 where they are unknown)."""
    found = [row for row in rows if isinstance(row, TaskRow)]
    assert len(found) == len(rows), "rows of examples"
    bounds = np.cumsum([0, *(len(row.tokens) for row in found)])
    targets = [np.zeros(len(row.places), np.int64) if row.targets is None else row.targets for row in found]
    truths = [row.truth for row in found if row.truth is not None]
    segments = [row.segments for row in found if row.segments is not None]
    return Batch(
        tokens_N=torch.from_numpy(np.concatenate([row.tokens for row in found])),
        positions_N=torch.from_numpy(np.concatenate([np.arange(len(row.tokens)) for row in found])),
        bounds_R1=torch.from_numpy(bounds.astype(np.int32)),
        max_row_length=max(len(row.tokens) for row in found),
        targets_M=torch.from_numpy(np.concatenate(targets)),
        target_index_M=torch.from_numpy(
            np.concatenate([row.places + start for row, start in zip(found, bounds[:-1], strict=True)])
        ),
        segments_N=torch.from_numpy(np.concatenate(segments)) if segments else None,
        samples_R=tuple(row.sample for row in found),
        sources_R=tuple(row.source for row in found),
        labels_R=torch.from_numpy(np.stack(truths)) if truths else None,
    )


def runs_by_length(rows: Sequence[Row], tokens_at_once: int) -> list[list[int]]:
    """Numbers of the rows in runs of at most so many tokens (at least one row), rows of like length together."""
    runs: list[list[int]] = []
    room = 0
    for number in sorted(range(len(rows)), key=lambda i: -rows[i].num_tokens):
        if rows[number].num_tokens > room:
            runs.append([])
            room = tokens_at_once
        runs[-1].append(number)
        room -= rows[number].num_tokens
    return runs
