"""What a recipe leaves open, settled for this model, this data and this machine."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.core.units import Duration, human
from foundling.data.rows import Samples
from foundling.optim.base import OptimizerConfig
from foundling.train import dial
from foundling.train.finetune_recipe import FinetuneRecipe
from foundling.train.machine import can_compile, choose_precision, vectorizes
from foundling.train.recipe import Recipe

_MICRO_BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
"""On CPU, 1,024 to 8,192 tokens at once are within 5 % of each other and memory grows with them (docs/log.md)."""
_COMPILE_WINS_AFTER_SECONDS = {"bf16": 45, "fp32": 150}
"""Compiling a block's forward and backward costs about 10 s on two cores, half a minute where lengths vary, and saves a
third of each step in bf16. In fp32 matrix products take most of a step on CPU: it saves a fifth of a step of rows of
256 tokens, and nothing of short ones."""

_MANY_EPOCHS = 16
"""Times over the same text from which on more of them teach next to nothing (Muennighoff et al. 2023,
arXiv:2305.16264)."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps whose rows have one length and whose batches have one size."""

    first_step: int
    row_length: int
    batch_rows: int
    micro_batch_rows: int


@dataclass(frozen=True)
class Settings:
    """Numbers of a run that stay the same when it is resumed, on whatever machine. Of several stretches, the first
    numbers are those of the longest rows, and of these of the largest batch."""

    row_length: int
    batch_rows: int
    micro_batch_rows: int
    total_steps: int
    lr: float
    precision: str
    compiled: bool
    phases: list[dict[str, int]] = field(default_factory=list)
    """The fields of each `Stretch`, in order; empty: one for the whole run."""

    @property
    def tokens_per_step(self) -> float:
        """Tokens of a step, the mean over the run where batches differ."""
        return self.tokens_at(self.total_steps) / self.total_steps

    def tokens_at(self, step: int) -> int:
        """Tokens of the first `step` steps."""
        return sum(count * stretch.batch_rows * stretch.row_length for stretch, count in self._counted(step))

    def first_sample(self, step: int, passed_over: Sequence[int]) -> int:
        """Number of a step's first sample in the order of its row length: stretches of one length go on in it.

        passed_over: batches of each stretch that a guard passed over.
        """
        length = self.stretches[self.stretch_at(step)].row_length
        counted = zip(self._counted(step), passed_over, strict=False)  # later stretches' too: a rewind may lead here
        return sum((count + more) * s.batch_rows for (s, count), more in counted if s.row_length == length)

    def _counted(self, step: int) -> list[tuple[Stretch, int]]:
        """Each stretch with how many of the first `step` steps lie in it."""
        ends = [*(stretch.first_step for stretch in self.stretches[1:]), step]
        return [
            (stretch, max(0, min(end, step) - stretch.first_step))
            for stretch, end in zip(self.stretches, ends, strict=True)
        ]

    @property
    def stretches(self) -> list[Stretch]:
        if not self.phases:
            return [Stretch(0, self.row_length, self.batch_rows, self.micro_batch_rows)]
        return [Stretch(**phase) for phase in self.phases]

    def stretch_at(self, step: int) -> int:
        """Number of the stretch that a step lies in."""
        return sum(stretch.first_step <= step for stretch in self.stretches) - 1

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def row_lengths_of(recipe: Recipe) -> list[int]:
    """Tokens of a row in each phase of a run: the phase's, the recipe's, or the dial's."""
    own = recipe.train.sequence_length or dial.default_row_length(recipe.model.depth or 6)
    return [phase.sequence_length or own for phase in recipe.train.phases] or [own]


def settle(
    recipe: Recipe,
    rows: Samples,
    *,
    num_weights: int,
    num_looked_up: int,
    width: int,
    flops_per_token: float,
    data_size: int,
    device: torch.device,
    lr_factors: Mapping[str, float],
    family: str,
) -> Settings:
    """Settings of a new run, told in a line. num_looked_up: weights of n-gram tables, for which a run is not made
    longer. data_size: processes that share each batch. lr_factors: what learns at a multiple of the rate. family: the
    model's."""
    length = recipe.train.length or Duration(dial.default_tokens(num_weights - num_looked_up), "tokens")
    shapes = _shapes(recipe, rows.row_length, _tokens_of(length, recipe, rows), data_size)
    row_length, batch_rows = max(shapes)
    if rows.num_rows < batch_rows:
        raise UserError(
            f"the training text must fill one batch of {batch_rows * row_length:,} tokens",
            got=f"{rows.num_rows * row_length:,} tokens",
            do="give more text or a smaller train.batch",
        )
    shares = [phase.share for phase in recipe.train.phases] or [1.0]
    mean = math.fsum(share * tokens * number for share, (tokens, number) in zip(shares, shapes, strict=True))
    tokens_per_step = round(mean / math.fsum(shares), 6)  # shares are sums of decimals: 0.9 + 0.1
    steps_per_epoch = rows.num_rows * row_length / tokens_per_step
    total_steps = length.steps(tokens_per_step=tokens_per_step, steps_per_epoch=steps_per_epoch)
    if total_steps < 1:
        raise UserError("train.length must be at least one step", got=str(length))
    precision = choose_precision(recipe.train.precision, device)
    seconds = total_steps * tokens_per_step * flops_per_token / precision.flops_per_second / 0.4
    rates = _rates(recipe, dial.default_lr(width, goes_on=recipe.model.start is not None), width)
    settings = Settings(
        row_length=row_length,
        batch_rows=batch_rows,
        micro_batch_rows=_micro_batch_rows(recipe, row_length, batch_rows // data_size, device),
        total_steps=total_steps,
        lr=_peak_lr(rates),
        precision=precision.name,
        compiled=_compiled(recipe, seconds, precision.name, device),
        phases=_phases(recipe, shapes, total_steps, data_size, device),
    )
    others = rates.other_rates(settings.lr, lr_factors)
    num_tokens = settings.tokens_at(total_steps)
    epochs = num_tokens / (rows.num_rows * row_length)
    logger.info(
        "training: %s by %s, %s weights, %s steps of %s tokens in rows of %s (%s tokens, %.2f epochs), "
        "peak rate %g%s, %s%s",
        family, recipe.objective.kind, human(num_weights), f"{total_steps:,}", f"{settings.tokens_per_step:,.0f}",
        " and ".join(dict.fromkeys(str(stretch.row_length) for stretch in settings.stretches)),
        human(num_tokens), epochs,
        settings.lr, "".join(f" ({name} {rate:g})" for name, rate in others.items()),
        settings.precision, ", compiled" if settings.compiled else "",
    )  # fmt: skip
    if recipe.train.length is None and epochs > _MANY_EPOCHS:
        logger.warning(
            "%.0f times over the same text: %d tokens a weight are more than there is; give train.length, a smaller "
            "model or more text", epochs, dial.TOKENS_PER_WEIGHT,
        )  # fmt: skip
    return settings


def settle_examples(
    recipe: FinetuneRecipe,
    rows: Samples,
    *,
    width: int,
    flops_per_token: float,
    mean_tokens: float,
    num_sides: int,
    data_size: int,
    device: torch.device,
) -> Settings:
    """Settings of a new fine-tuning, whose rows differ in length. mean_tokens: of a row. num_sides: among how many
    stacks of layers a row's tokens are parted, 2 of an encoder-decoder."""
    batch_rows = int(recipe.train.batch.value)
    if batch_rows % data_size or batch_rows < 1:
        raise UserError("train.batch in examples must be a multiple of the processes", got=f"{batch_rows}, {data_size}")
    length = recipe.train.length
    total_steps = length.steps(tokens_per_step=0, steps_per_epoch=rows.num_rows / batch_rows)
    if total_steps < 1:
        raise UserError("train.length must be at least one step", got=f"{length} of {rows.num_rows} rows")
    precision = choose_precision(recipe.train.precision, device)
    seconds = total_steps * batch_rows * mean_tokens * flops_per_token / precision.flops_per_second / 0.4
    settings = Settings(
        row_length=rows.row_length,
        batch_rows=batch_rows,
        micro_batch_rows=min(batch_rows // data_size, _most_rows(recipe, rows.row_length // num_sides, device)),
        total_steps=total_steps,
        lr=_peak_lr(_rates(recipe, dial.default_finetuning_lr(width, pretrained=recipe.base is not None), width)),
        precision=precision.name,
        compiled=_compiled(recipe, seconds, precision.name, device),
    )
    logger.info(
        "training: %s steps of %d examples (%.2f epochs), peak rate %g, %s%s",
        f"{total_steps:,}", batch_rows, total_steps * batch_rows / rows.num_rows, settings.lr, settings.precision,
        ", compiled" if settings.compiled else "",
    )  # fmt: skip
    return settings


def _rates(recipe: Recipe | FinetuneRecipe, adamw_lr: float, width: int) -> OptimizerConfig:
    """The recipe's optimizer with its rate, or with what it makes of AdamW's default."""
    assert isinstance(recipe.optimizer, OptimizerConfig)
    return recipe.optimizer.with_rates(adamw_lr, width)


def _peak_lr(rates: OptimizerConfig) -> float:
    assert rates.lr is not None
    return rates.lr


def _tokens_of(length: Duration, recipe: Recipe, rows: Samples) -> float:
    if length.unit == "tokens":
        return length.value
    if length.unit == "epochs":
        return length.value * rows.num_rows * rows.row_length
    batch = recipe.train.batch
    per_step = 8192.0 if batch is None else batch.value * (rows.row_length if batch.unit == "examples" else 1)
    return length.value * per_step


def _shapes(recipe: Recipe, longest: int, run_tokens: float, data_size: int) -> list[tuple[int, int]]:
    """Row length and rows of a step in each phase, or those of the whole run. A phase without a batch of its own has
    as many tokens a step as the run's batch of the longest rows."""
    batch = recipe.train.batch or Duration(dial.default_batch_tokens(max(1, int(run_tokens))), "tokens")
    if not recipe.train.phases:
        return [(longest, _batch_rows(batch, longest, data_size))]
    found = []
    for phase, length in zip(recipe.train.phases, row_lengths_of(recipe), strict=True):
        if phase.batch is not None:
            rows = _batch_rows(phase.batch, length, data_size)
        else:
            tokens = _batch_rows(batch, longest, data_size) * longest
            rows = max(1, round(tokens / length / data_size)) * data_size
        found.append((length, rows))
    return found


def _batch_rows(batch: Duration, row_length: int, data_size: int) -> int:
    wanted = batch.value if batch.unit == "examples" else batch.value / row_length
    per_process = round(wanted / data_size)
    if per_process < 1:
        raise UserError(
            f"train.batch must hold a row of {row_length} tokens for each of {data_size} process(es)", got=str(batch)
        )
    if batch.unit == "examples" and wanted % data_size:
        raise UserError("train.batch in rows must be a multiple of the processes", got=f"{wanted:g} and {data_size}")
    return per_process * data_size


def _phases(
    recipe: Recipe, shapes: list[tuple[int, int]], total_steps: int, data_size: int, device: torch.device
) -> list[dict[str, int]]:
    """The recipe's phases as stretches of steps."""
    found, share = [], 0.0
    for phase, (length, rows) in zip(recipe.train.phases, shapes, strict=False):
        micro = _micro_batch_rows(recipe, length, rows // data_size, device)
        found.append(Stretch(round(share * total_steps), length, rows, micro))
        share += phase.share
    ends = [*(stretch.first_step for stretch in found[1:]), total_steps]
    if any(end <= stretch.first_step for stretch, end in zip(found, ends, strict=False)):
        raise UserError("each of train.phases must last at least one step", got=f"{total_steps} steps in all")
    return [asdict(stretch) for stretch in found]


def _micro_batch_rows(recipe: Recipe | FinetuneRecipe, row_length: int, rows_here: int, device: torch.device) -> int:
    """The largest divisor of this process's rows within the limit, so that all micro-batches have one shape."""
    limit = min(rows_here, _most_rows(recipe, row_length, device))
    return max(d for d in range(1, limit + 1) if rows_here % d == 0)


def _most_rows(recipe: Recipe | FinetuneRecipe, row_length: int, device: torch.device) -> int:
    """Rows that are computed at once at most."""
    wanted = recipe.train.micro_batch
    return max(1, _MICRO_BATCH_TOKENS[device.type] // max(1, row_length)) if wanted == "auto" else wanted


def _compiled(recipe: Recipe | FinetuneRecipe, seconds: float, precision: str, device: torch.device) -> bool:
    asked = recipe.train.compile
    if asked is False or (asked == "auto" and seconds <= _COMPILE_WINS_AFTER_SECONDS[precision]):
        return False
    possible = can_compile(device)
    if asked is True and not possible:
        raise UserError("train.compile needs a C++ compiler (Triton on CUDA)", got="none", do="set train.compile=false")
    if asked == "auto" and not possible:
        logger.warning("no C++ compiler was found: training runs uncompiled, about a third slower")
    if possible and device.type == "cpu" and not vectorizes():
        logger.warning(
            "torch's compiler finds no vector instructions on this processor, though torch has them: its kernels will "
            "be several times slower. A process that it starts to look for them fails: see the system's log"
        )
    return possible


class Clock:
    """Seconds since the start, less what was left out (evaluation, checkpoints)."""

    def __init__(self, before: float = 0.0) -> None:
        self._start, self._left_out = time.perf_counter(), -before

    def seconds(self) -> float:
        return time.perf_counter() - self._start - self._left_out

    def wall(self) -> float:
        """Seconds since this process began the run, nothing left out."""
        return time.perf_counter() - self._start

    def leave_out(self, seconds: float) -> None:
        self._left_out += seconds
