"""What a recipe leaves open, settled for this model, this data and this machine."""

import time
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
from foundling.train.machine import Precision, can_compile, choose_precision
from foundling.train.recipe import Recipe

_MICRO_BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
"""On CPU, 1,024 to 8,192 tokens at once are within 5 % of each other and memory grows with them (docs/log.md)."""
_COMPILE_WINS_AFTER_SECONDS = 45
"""Compiling a block's forward and backward costs about 10 s on two cores and saves a third of each step."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps whose rows have one length."""

    first_step: int
    row_length: int
    batch_rows: int
    micro_batch_rows: int


@dataclass(frozen=True)
class Settings:
    """Numbers of a run that stay the same when it is resumed, on whatever machine. Of several row lengths, the first
    numbers are those of the longest."""

    row_length: int
    batch_rows: int
    micro_batch_rows: int
    total_steps: int
    lr: float
    precision: str
    compiled: bool
    phases: list[dict[str, int]] = field(default_factory=list)
    """The fields of each `Stretch`, in order; empty: one row length for the whole run."""

    @property
    def tokens_per_step(self) -> int:
        return self.row_length * self.batch_rows

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


def row_length_of(recipe: Recipe) -> int:
    """Tokens of a row, of the longest where there are several: the recipe's, or the dial's."""
    if recipe.train.phases:
        return max(phase.sequence_length for phase in recipe.train.phases)
    if recipe.train.sequence_length is not None:
        return recipe.train.sequence_length
    return dial.default_row_length(recipe.model.depth or 6)


def settle(
    recipe: Recipe,
    rows: Samples,
    *,
    num_weights: int,
    width: int,
    flops_per_token: float,
    data_size: int,
    device: torch.device,
) -> tuple[Settings, Precision]:
    """Settings of a new run. data_size: processes that share each batch."""
    row_length = rows.row_length
    length = recipe.train.length or Duration(dial.default_tokens(num_weights), "tokens")
    run_tokens = _tokens_of(length, recipe, rows)
    batch_rows = _batch_rows(recipe, row_length, run_tokens, data_size)
    if rows.num_rows < batch_rows:
        raise UserError(
            f"the training text must fill one batch of {batch_rows * row_length:,} tokens",
            got=f"{rows.num_rows * row_length:,} tokens",
            do="give more text or a smaller train.batch",
        )
    tokens_per_step = batch_rows * row_length
    total_steps = length.steps(tokens_per_step=tokens_per_step, steps_per_epoch=rows.num_rows / batch_rows)
    if total_steps < 1:
        raise UserError("train.length must be at least one step", got=str(length))
    precision = choose_precision(recipe.train.precision, device)
    seconds = total_steps * tokens_per_step * flops_per_token / precision.flops_per_second / 0.4
    settings = Settings(
        row_length=row_length,
        batch_rows=batch_rows,
        micro_batch_rows=_micro_batch_rows(recipe, row_length, batch_rows // data_size, device),
        total_steps=total_steps,
        lr=_peak_lr(recipe, dial.default_lr(width, goes_on=recipe.model.start is not None), width),
        precision=precision.name,
        compiled=_compiled(recipe, seconds, device),
        phases=_phases(recipe, tokens_per_step, total_steps, data_size, device),
    )
    epochs = total_steps * batch_rows / rows.num_rows
    logger.info(
        "training: %s weights, %s steps of %s tokens (%s tokens, %.2f epochs), peak rate %g, %s%s",
        human(num_weights), f"{total_steps:,}", f"{tokens_per_step:,}", human(total_steps * tokens_per_step), epochs,
        settings.lr, settings.precision, ", compiled" if settings.compiled else "",
    )  # fmt: skip
    return settings, precision


def settle_examples(
    recipe: FinetuneRecipe,
    rows: Samples,
    *,
    width: int,
    flops_per_token: float,
    mean_tokens: float,
    data_size: int,
    device: torch.device,
) -> Settings:
    """Settings of a new fine-tuning, whose rows differ in length. mean_tokens: of a row."""
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
        micro_batch_rows=_micro_batch_rows(recipe, rows.row_length, batch_rows // data_size, device),
        total_steps=total_steps,
        lr=_peak_lr(recipe, dial.default_finetuning_lr(width, pretrained=recipe.base is not None), width),
        precision=precision.name,
        compiled=_compiled(recipe, seconds, device),
    )
    logger.info(
        "training: %s steps of %d examples (%.2f epochs), peak rate %g, %s%s",
        f"{total_steps:,}", batch_rows, total_steps * batch_rows / rows.num_rows, settings.lr, settings.precision,
        ", compiled" if settings.compiled else "",
    )  # fmt: skip
    return settings


def _peak_lr(recipe: Recipe | FinetuneRecipe, adamw_lr: float, width: int) -> float:
    """The recipe's rate, or what its optimizer makes of AdamW's default."""
    assert isinstance(recipe.optimizer, OptimizerConfig)
    lr = recipe.optimizer.with_rates(adamw_lr, width, {}).lr
    assert lr is not None
    return lr


def _tokens_of(length: Duration, recipe: Recipe, rows: Samples) -> float:
    if length.unit == "tokens":
        return length.value
    if length.unit == "epochs":
        return length.value * rows.num_rows * rows.row_length
    batch = recipe.train.batch
    per_step = 8192.0 if batch is None else batch.value * (rows.row_length if batch.unit == "examples" else 1)
    return length.value * per_step


def _batch_rows(recipe: Recipe, row_length: int, run_tokens: float, data_size: int) -> int:
    batch = recipe.train.batch or Duration(dial.default_batch_tokens(int(run_tokens)), "tokens")
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
    recipe: Recipe, tokens_per_step: int, total_steps: int, data_size: int, device: torch.device
) -> list[dict[str, int]]:
    """The recipe's phases as stretches of steps, each of about `tokens_per_step`."""
    found, share = [], 0.0
    for phase in recipe.train.phases:
        rows = max(1, round(tokens_per_step / phase.sequence_length / data_size)) * data_size
        micro = _micro_batch_rows(recipe, phase.sequence_length, rows // data_size, device)
        found.append(Stretch(round(share * total_steps), phase.sequence_length, rows, micro))
        share += phase.share
    ends = [*(stretch.first_step for stretch in found[1:]), total_steps]
    if any(end <= stretch.first_step for stretch, end in zip(found, ends, strict=False)):
        raise UserError("each of train.phases must last at least one step", got=f"{total_steps} steps in all")
    return [asdict(stretch) for stretch in found]


def _micro_batch_rows(recipe: Recipe | FinetuneRecipe, row_length: int, rows_here: int, device: torch.device) -> int:
    """The largest divisor of this process's rows within the limit, so that all micro-batches have one shape."""
    wanted = recipe.train.micro_batch
    limit = max(1, _MICRO_BATCH_TOKENS[device.type] // row_length) if wanted == "auto" else wanted
    return max(d for d in range(1, min(limit, rows_here) + 1) if rows_here % d == 0)


def _compiled(recipe: Recipe | FinetuneRecipe, seconds: float, device: torch.device) -> bool:
    asked = recipe.train.compile
    if asked is False:
        return False
    possible = can_compile(device)
    if asked is True and not possible:
        raise UserError("train.compile needs a C++ compiler (Triton on CUDA)", got="none", do="set train.compile=false")
    if asked == "auto" and not possible:
        logger.warning("no C++ compiler was found: training runs uncompiled, about a third slower")
    return possible and (asked is True or seconds > _COMPILE_WINS_AFTER_SECONDS)


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
