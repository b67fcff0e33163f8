"""Validation loss during training: bits per byte of text that is never trained on."""

import math
import time

import numpy as np
import torch

from foundling.core.errors import UserError
from foundling.data.rows import Row
from foundling.data.store import TokenStream
from foundling.train.state import Training


class Evaluate:
    """Scores the first `evaluate.tokens` of the validation streams before, during and after the run."""

    def __init__(self, training: Training) -> None:
        recipe, settings = training.recipe, training.settings
        every = recipe.evaluate.every.steps(
            tokens_per_step=settings.tokens_per_step, steps_per_epoch=0, total_steps=settings.total_steps
        )
        self._every = max(1, every)
        self._rows = validation_rows(training)

    def on_start(self, training: Training) -> None:
        if training.step == 0:
            self._run(training)

    def on_step(self, training: Training) -> None:
        if training.step % self._every == 0 or training.step == training.settings.total_steps:
            self._run(training)

    def on_end(self, training: Training) -> None:
        """Nothing: the last step was evaluated by on_step."""

    def _run(self, training: Training) -> None:
        start = time.perf_counter()
        nats, num_tokens, num_bytes = score_rows(training, self._rows)
        training.clock.leave_out(time.perf_counter() - start)
        if not math.isfinite(nats):
            raise UserError("the validation loss must be finite", got=nats, do="lower optimizer.lr")
        training.metrics["valid_step"] = training.step
        training.record(
            {
                "valid/loss": nats / num_tokens,
                "valid/perplexity": math.exp(min(700.0, nats / num_tokens)),
                "valid/bits_per_byte": nats / math.log(2) / num_bytes,
                "valid/tokens": num_tokens,
            }
        )


def validation_rows(training: Training) -> list[tuple[Row, float]]:
    """Rows of the validation streams with the bytes that their targets stand for, at most `evaluate.tokens`."""
    found: list[tuple[Row, float]] = []
    budget = training.recipe.evaluate.tokens
    for number, stream in enumerate(training.data.valid):
        found += _rows_of(stream, number, training, budget // len(training.data.valid))
    if not found:
        raise UserError(
            "the validation text must fill one row",
            got=f"{sum(s.num_tokens for s in training.data.valid)} tokens",
            do="give corpus.valid a path of its own, or hold more back: corpus.valid.fraction for raw text, "
            "`corpus build ... valid_fraction=0.1 --replace` for a corpus folder",
        )
    size = training.settings.micro_batch_rows
    if training.settings.compiled and len(found) > size:
        return found[: len(found) // size * size]  # groups of one shape are compiled once
    return found


def _rows_of(stream: TokenStream, number: int, training: Training, budget: int) -> list[tuple[Row, float]]:
    length, extra = training.rows.row_length, training.rows.extra_tokens
    num_rows = min(max(1, budget // length), (stream.num_tokens - extra) // length)
    rows = [Row(i, number, i * length, stream.read(i * length, length + extra)) for i in range(num_rows)]
    # Bytes before each row's first target: whole documents count exactly, the one that is cut by its share of tokens.
    edges = np.append(stream.document_starts, stream.num_tokens)
    bytes_at = np.append(0, np.cumsum(stream.document_bytes))
    before = np.interp(extra + length * np.arange(num_rows + 1), edges, bytes_at)
    return list(zip(rows, np.diff(before).tolist(), strict=True))


def score_rows(training: Training, rows: list[tuple[Row, float]]) -> tuple[float, int, float]:
    """Summed loss in nats, number of targets and of bytes, over all processes."""
    world, size = training.world, training.settings.micro_batch_rows
    totals = torch.zeros(3, dtype=torch.float64)
    training.trainee.eval()
    with torch.no_grad():
        # every process takes every data_size-th group, and all the same number of groups: FSDP2 gathers together
        groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        rounds = -(-len(groups) // world.data_size)
        for number in range(rounds):
            mine = number * world.data_size + world.data_rank
            group = groups[min(mine, len(groups) - 1)]
            batch = training.objective.collate([row for row, _ in group])
            losses = training.trainee(batch.to(world.device), None)
            if mine < len(groups):
                share = sum(num_bytes for _, num_bytes in group)
                totals += torch.tensor([losses.double().sum().item(), losses.numel(), share], dtype=torch.float64)
    training.trainee.train()
    totals = world.sum(totals.to(world.device))
    return totals[0].item(), int(totals[1].item()), totals[2].item()
