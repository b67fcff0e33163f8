"""Validation during training, on text never trained on: the loss, and bits per byte where they have a meaning."""

import math
import time
from dataclasses import replace

import numpy as np
import torch

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.data.rows import Row
from foundling.data.store import TokenStream
from foundling.train.callbacks.base import Callback
from foundling.train.state import Training


class Evaluate(Callback):
    """Scores the first `evaluate.tokens` of the validation streams before, during and after the run."""

    def __init__(self, training: Training) -> None:
        recipe, settings = training.recipe, training.settings
        every = recipe.evaluate.every.steps(
            tokens_per_step=settings.tokens_per_step, steps_per_epoch=0, total_steps=settings.total_steps
        )
        self._every = max(1, every)
        longest = training.rows.row_length
        self._rows = {longest: validation_rows(training, longest)}  # what is wrong is told before the first step

    def on_start(self, training: Training) -> None:
        if training.step == 0:
            self._run(training)

    def on_step(self, training: Training) -> None:
        if training.step % self._every == 0 or training.step == training.rests_at:
            self._run(training)

    def on_end(self, training: Training) -> None:
        """The averaged weights too, where there are any: they are what the run gives."""
        if training.optimizer.has_average:
            with training.optimizer.averaged():
                self._run(training, "average")

    def _run(self, training: Training, prefix: str = "valid") -> None:
        start = time.perf_counter()
        length = _row_length(training)
        if length not in self._rows:
            self._rows[length] = validation_rows(training, length)
        sums, num_bytes = score_rows(training, self._rows[length])
        by_name = {name: sums.pop(f"loss/{i}", (0.0, 0.0)) for i, name in enumerate(training.data.valid_names)}
        training.clock.leave_out(time.perf_counter() - start)
        nats, num_targets = sums.pop("loss")
        if not math.isfinite(nats):
            raise UserError("the validation loss must be finite", got=nats, do="lower optimizer.lr")
        training.metrics["valid_step"] = training.step
        bits = {f"{prefix}/bits_per_byte": nats / math.log(2) / num_bytes} if training.objective.predicts_text else {}
        training.record(
            {
                f"{prefix}/loss": nats / num_targets,
                f"{prefix}/perplexity": math.exp(min(700.0, nats / num_targets)),
                **bits,
                **{f"{prefix}/{name}": total / max(1, number) for name, (total, number) in sums.items()},
                **{
                    f"{prefix}/loss/{name}": total / n for name, (total, n) in by_name.items() if n and len(by_name) > 1
                },
                f"{prefix}/tokens": int(num_targets),
                **({f"{prefix}/row_length": length} if len({one.row_length for one in training.samples}) > 1 else {}),
            }
        )


def _row_length(training: Training) -> int:
    """Of the phase that the last step was of: longer rows have positions that were never trained."""
    return training.samples[training.settings.stretch_at(max(0, training.step - 1))].row_length


def validation_rows(training: Training, row_length: int) -> list[tuple[Row, float]]:
    """Rows of the validation streams with the bytes that their targets stand for, at most `evaluate.tokens`."""
    found: list[tuple[Row, float]] = []
    faults: dict[str, str] = {}
    budget = training.recipe.evaluate.tokens
    for number, (stream, name) in enumerate(zip(training.data.valid, training.data.valid_names, strict=True)):
        rows = _side_by_side if training.objective.predicts_text else _sampled
        try:
            own = rows(stream, number, training, row_length, budget // len(training.data.valid))
        except UserError as fault:
            own, faults[name] = [], str(fault)
        if not own:
            faults.setdefault(name, f"{stream.num_tokens} tokens")
        found += own
    if not found:
        raise UserError(
            "the validation text must fill one row",
            got="; ".join(dict.fromkeys(faults.values())),
            do="give corpus.valid a path of its own, or hold more back: corpus.valid.fraction for raw text, "
            "`corpus build ... valid_fraction=0.1 --replace` for a corpus folder",
        )
    for name, told in faults.items():
        logger.warning("validation leaves out %s: %s", name, told)
    size = training.settings.micro_batch_rows
    if training.settings.compiled and len(found) > size:
        return found[: len(found) // size * size]  # groups of one shape are compiled once
    return found


def _sampled(
    stream: TokenStream, number: int, training: Training, row_length: int, budget: int
) -> list[tuple[Row, float]]:
    """The objective's own samples of the stream, the same each time; bytes have no meaning for them. UserError: too
    little text for one."""
    samples = training.objective.samples([stream], None, row_length=row_length, seed=0)
    num_rows = min(max(1, budget // row_length), samples.num_rows)
    rows = sorted((samples[i] for i in range(num_rows)), key=lambda row: -len(row.tokens))  # as micro-batches are
    return [(replace(row, source=number), 0.0) for row in rows]


def _side_by_side(
    stream: TokenStream, number: int, training: Training, row_length: int, budget: int
) -> list[tuple[Row, float]]:
    """Rows in the order of the text, each token predicted once."""
    length, extra = row_length, 1  # a row's last target lies behind it
    num_rows = min(max(1, budget // length), (stream.num_tokens - extra) // length)
    rows = [Row(i, number, i * length, stream.read(i * length, length + extra)) for i in range(num_rows)]
    # Bytes before each row's first target: whole documents count exactly, the one that is cut by its share of tokens.
    edges = np.append(stream.document_starts, stream.num_tokens)
    bytes_at = np.append(0, np.cumsum(stream.document_bytes))
    before = np.interp(extra + length * np.arange(num_rows + 1), edges, bytes_at)
    return list(zip(rows, np.diff(before).tolist(), strict=True))


def score_rows(training: Training, rows: list[tuple[Row, float]]) -> tuple[dict[str, tuple[float, float]], float]:
    """Over all processes: of each score of the objective the sum (of `loss` in nats) and how many, and the bytes.

    The loss is also there for each validation stream, as `loss/0`, `loss/1`, ...
    """
    world, size = training.world, training.settings.micro_batch_rows
    names = [f"loss/{i}" for i in range(len(training.data.valid))]
    totals = {name: torch.zeros(2, dtype=torch.float64) for name in names}
    num_bytes = 0.0
    with training.trainee.scoring():
        # every process takes every data_size-th group, and all the same number of groups: FSDP2 gathers together
        groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        rounds = -(-len(groups) // world.data_size)
        for number in range(rounds):
            mine = number * world.data_size + world.data_rank
            group = groups[min(mine, len(groups) - 1)]
            batch = training.objective.collate([row for row, _ in group])
            scores = training.trainee(batch.to(world.device), None)
            if mine < len(groups):
                by_source = batch.losses_by_source(scores["loss"].cpu(), len(names))
                for name, found in zip(names, by_source, strict=True):
                    totals[name] += found
            for name, values in scores.items():
                found = torch.tensor([values.double().sum().item(), values.numel()], dtype=torch.float64)
                totals[name] = totals.get(name, torch.zeros_like(found)) + (found if mine < len(groups) else 0 * found)
            if mine < len(groups):
                num_bytes += sum(share for _, share in group)
    flat = torch.cat([*totals.values(), torch.tensor([num_bytes], dtype=torch.float64)])
    *sums, num_bytes = world.sum(flat.to(world.device)).tolist()
    return {name: (sums[2 * i], sums[2 * i + 1]) for i, name in enumerate(totals)}, num_bytes
