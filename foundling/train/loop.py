"""The only training loop. What differs between runs is the objective, the recipe and the callbacks."""

import hashlib
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import numpy as np
import torch

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.data.batch import Batch
from foundling.data.rows import Row
from foundling.objectives.base import Scale
from foundling.train.callbacks.base import Callback
from foundling.train.incident import Action, found_by_all, respond
from foundling.train.state import Training


def run_loop(training: Training, callbacks: Sequence[Callback]) -> None:
    """Trains until the run's last step or its rest, until a callback ends it, or until SIGTERM or SIGINT; then lets
    the callbacks finish."""
    with _polite_stop(training):
        for callback in callbacks:
            callback.on_start(training)
        while training.step < training.rests_at and not training.ends_early:
            try:
                action = training_step(training)
            except Exception as error:
                if not _compiler_was_stopped(training, error):
                    raise
                logger.warning("the compiler was stopped too: the step in hand is not taken")
                break
            for callback in callbacks:
                if action == "rewind":
                    callback.on_rewind(training)
                elif action != "skip":
                    callback.on_step(training)
            stop_signal = training.world.max(training.stop_signal or 0)
            if stop_signal:
                training.stop_signal = stop_signal
                break
    for callback in callbacks:
        callback.on_end(training)


def training_step(training: Training) -> Action | None:
    """One optimizer step: every micro-batch forward and backward, the checks, the update. What the guard had to do, if
    anything: after `skip` and `rewind` no step was taken.

    Loss and gradients are sums over the whole batch's targets divided by their number, whatever the micro-batches and
    processes; FSDP2 averages over processes, which the scale undoes.
    """
    settings, world = training.settings, training.world
    torch.manual_seed(_seed_of(training))
    batches = micro_batches(training)
    num_sources = len(training.data.names)
    sizes = [torch.tensor([b.num_targets, b.num_rows, *tokens_by_source(b, num_sources)]).double() for b in batches]
    num_targets, num_rows, *num_tokens = world.sum(torch.stack(sizes).sum(0).to(world.device)).tolist()
    if num_targets == 0:
        raise UserError(f"each batch must hold a target; step {training.step} has none", got=_where(training))
    scale = Scale(world.data_size / num_targets, world.data_size / num_rows)
    losses, losses_by_source = _accumulate(training, batches, scale)
    loss_value = sum(losses.values())
    if training.recipe.train.clip_value is not None:
        training.optimizer.clip_values(training.recipe.train.clip_value)
    norm = training.optimizer.gradient_norm()
    action = None
    if finding := found_by_all(training, loss_value, norm):
        action = respond(training, batches, finding, loss_value, norm)
        if action != "warn":
            return action
    training.guard.note(loss_value, norm, training.recipe.train.guard)
    clip = training.recipe.train.clip
    gradient_factor = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
    factor = training.schedule(training.step)
    training.optimizer.step(factor, gradient_factor)
    training.step += 1
    training.tokens_by_source = [old + int(n) for old, n in zip(training.tokens_by_source, num_tokens, strict=True)]
    training.losses_by_source += losses_by_source
    training.metrics |= {"loss": loss_value, "gradient_norm": norm, "lr": settings.lr * factor}
    training.loss_parts = losses
    return action


def _accumulate(training: Training, batches: Sequence[Batch], scale: Scale) -> tuple[dict[str, float], torch.Tensor]:
    """Every micro-batch forward and backward; gradients add up in the optimizer. Over all processes: the parts of the
    loss, and where sources are mixed the sum and number of each one's losses, fp64 [sources, 2] on the CPU."""
    world, num_sources = training.world, len(training.data.names)
    totals: dict[str, torch.Tensor] = {}
    by_source = torch.zeros(num_sources, 2, dtype=torch.float64, device=world.device)
    for batch in batches:
        parts, each = training.trainee(batch.to(world.device), scale)
        torch.stack(list(parts.values())).sum().backward()
        training.optimizer.collect()
        for name, part in parts.items():
            totals[name] = totals.get(name, torch.zeros_like(part)) + part.detach() / world.data_size
        if num_sources > 1:
            by_source += batch.losses_by_source(each, num_sources)
    summed = world.sum(torch.cat([torch.stack(list(totals.values())).double(), by_source.flatten()])).cpu()
    losses = dict(zip(totals, summed[: len(totals)].tolist(), strict=True))
    return losses, summed[len(totals) :].view(num_sources, 2)


def _seed_of(training: Training) -> int:
    """What the chance within a step (dropout) follows from: a function of the run's seed, the step and the share of the
    batch, so a resumed run needs to know nothing of what was drawn before, on whatever device."""
    what = repr((training.recipe.seed, training.step, training.world.data_rank))
    return int.from_bytes(hashlib.blake2b(what.encode(), digest_size=8).digest(), "little")


def tokens_by_source(batch: Batch, num_sources: int) -> list[int]:
    """How many of a batch's tokens come from each source."""
    return np.bincount(batch.sources_R, batch.tokens_of_rows, minlength=num_sources).astype(int).tolist()


def rows_of_step(training: Training, step: int) -> list[Row]:
    """This process's rows of a step: the step's samples in order, behind those that were passed over, cut evenly over
    the data shares."""
    world, number = training.world, training.settings.stretch_at(step)
    stretch, samples = training.settings.stretches[number], training.samples[number]
    share = stretch.batch_rows // world.data_size
    first = training.settings.first_sample(step, training.guard.passed_over) + world.data_rank * share
    return [samples[sample] for sample in range(first, first + share)]


def micro_batches(training: Training) -> list[Batch]:
    """This process's rows of the step, in packed batches that are computed one after another.

    Rows are sorted by length, since attention takes rows of one length together, and fall into runs of about equally
    many tokens, at most those of `micro_batch_rows` full rows. Every process makes as many, because FSDP2 gathers on
    all at once. Rows of one length stay in their order.
    """
    world, settings = training.world, training.settings
    stretch = settings.stretches[settings.stretch_at(training.step)]
    rows = sorted(rows_of_step(training, training.step), key=lambda row: -row.num_tokens)
    lengths = [row.num_tokens for row in rows]
    limit = stretch.micro_batch_rows * max(lengths[0], stretch.row_length)
    number = world.max(-(-sum(lengths) // limit))
    ends = runs_of(lengths, number)
    return [training.objective.collate(rows[first:end]) for first, end in zip([0, *ends], ends, strict=False)]


def runs_of(lengths: list[int], number: int) -> list[int]:
    """Ends of `number` runs of rows, none empty, whose tokens are as equal as whole rows allow."""
    assert 1 <= number <= len(lengths), (number, len(lengths))
    before = np.cumsum(lengths)
    ends = [0]
    for run in range(1, number):
        wanted = int(np.searchsorted(before, before[-1] * run / number, side="left")) + 1
        ends.append(min(max(wanted, ends[-1] + 1), len(lengths) - number + run))
    return [*ends[1:], len(lengths)]


@contextmanager
def _polite_stop(training: Training) -> Iterator[None]:
    """SIGTERM and SIGINT end the loop after the step in hand; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:
        training.stop_signal = number
        signal.signal(number, before[signal.Signals(number)])
        logger.info("%s: stopping after this step, with a checkpoint", signal.Signals(number).name)

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _compiler_was_stopped(training: Training, error: Exception) -> bool:
    """Whether a step failed because the signal that ends the run ended the compiler that the step waited for: Ctrl-C in
    a terminal reaches both. Weights and optimizer are then those of the step before. Among several processes the others
    would wait for this one's part of the step, so there it stays an error."""
    compiling = type(error).__module__.startswith(("torch._inductor", "torch._dynamo"))
    return bool(training.stop_signal) and compiling and training.world.size == 1


def _where(training: Training) -> str:
    rows = rows_of_step(training, training.step)
    return f"samples {rows[0].sample} to {rows[-1].sample}"
