"""Recipe to live objects, in the one order that works for every engine.

meta device -> tensor parallel -> compile -> recompute -> FSDP2 -> to_empty -> initial or loaded weights -> optimizer ->
copies. (Wrapping by PEFT comes before tensor parallel.)
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.data.rows import Samples
from foundling.models.base import family_of
from foundling.models.hub import find_model_dir, load_config
from foundling.models.vectors import VectorFile
from foundling.models.vocabulary import must_have_rows
from foundling.nn.attention import training_kernel
from foundling.nn.init import place_
from foundling.nn.ngrams import ngram_tables
from foundling.objectives.base import Objective
from foundling.optim.base import OptimizerConfig
from foundling.optim.optimizer import Optimizer
from foundling.optim.schedules.base import ScheduleConfig
from foundling.parallel.apply import apply_sharding, apply_tensor_parallel, compile_blocks, recompute_blocks
from foundling.parallel.world import World
from foundling.tokenizers.base import load_tokenizer
from foundling.train.dial import default_lr
from foundling.train.machine import choose_precision
from foundling.train.prepare import Data
from foundling.train.recipe import Recipe
from foundling.train.settings import Settings, row_lengths_of, settle
from foundling.train.start import LOGIT_BIAS, fill, fill_embedding, fill_logit_bias, start_weights, with_dropout
from foundling.train.state import Trainee, Training

_LOOK_AT_ROWS = 64
"""Samples whose lengths tell whether lengths differ."""


def build(recipe: Recipe, data: Data, folder: Path, world: World, settings: Settings | None) -> Training:
    """All live objects of a run at its first step. settings: those of the run to resume; None: settled now."""
    objective = _objective(recipe, data)
    resumed = settings is not None
    row_length = settings.row_length if settings else max(row_lengths_of(recipe))
    rows = objective.samples(data.train, None, row_length=row_length, seed=recipe.seed)
    start = start_weights(recipe, data)
    config: Any = start.config if start is not None else recipe.model.fields(data.tokenizer.vocab_size, rows.row_length)
    config = _with_implied(config, recipe)
    if recipe.train.dropout is not None:
        config = with_dropout(config, recipe.train.dropout)
    _check_lengths(config, rows.row_length)
    recipe = _with_precision(recipe, config)
    with torch.device("meta"):
        model: Any = config.build()
    if hasattr(model, "target_share"):
        model.target_share = len(rows[0].tokens) / rows[0].num_tokens
    assert isinstance(recipe.optimizer, OptimizerConfig)
    lr_factors = model.lr_factors if start is None and recipe.optimizer.takes_factors else {}
    flops = model.flops_per_token(rows.row_length)
    num_weights = sum(p.numel() for p in model.parameters())
    num_looked_up = sum(model.get_parameter(name).numel() for name in ngram_tables(model))
    if settings is None:
        settings = settle(
            recipe, rows, num_weights=num_weights, num_looked_up=num_looked_up,
            width=config.width, flops_per_token=flops, data_size=world.data_size, device=world.device,
            lr_factors=lr_factors, family=family_of(config),
        )  # fmt: skip
        settings = world.share(settings)
    samples = _samples(recipe, data, objective, rows, settings, world)

    def fill_all() -> None:
        given = None if start is None else dict(start.named_parameters())
        fill(model, given, recipe.seed)
        if not resumed and LOGIT_BIAS not in (given or {}):
            fill_logit_bias(model, data, data.mixture.first_shares(rows.rows_per_stream))
        if recipe.model.embeddings is not None and not resumed:
            fill_embedding(model, recipe.model.embeddings, data, recipe.seed)

    sizes = {(stretch.row_length, stretch.micro_batch_rows) for stretch in settings.stretches}
    any_size = len(sizes) > 1 or _lengths_differ(samples[0])
    return assemble(
        recipe, data, folder, world, settings, model=model, objective=objective, samples=samples, any_size=any_size,
        fill_weights=fill_all, adamw_lr=default_lr(config.width, goes_on=start is not None),
        lr_factors=lr_factors,
    )  # fmt: skip


def assemble(
    recipe: Any,
    data: Any,
    folder: Path,
    world: World,
    settings: Settings,
    *,
    model: Any,
    objective: Any,
    samples: list[Samples],
    any_size: bool,
    fill_weights: Callable[[], None],
    adamw_lr: float,
    lr_factors: Mapping[str, float] | None = None,
) -> Training:
    """From a model on the meta device and settled numbers to a run at its first step, of whatever kind.

    any_size: whether batches hold different numbers of tokens. fill_weights: gives the model's parameters, which are
    empty until then, their values. adamw_lr: AdamW's default rate for this model, of which others' follow.
    lr_factors: see `Optimizer`.
    """
    precision = choose_precision(settings.precision, world.device)
    trainee = Trainee(model, objective, settings.compiled)
    apply_tensor_parallel(model, model.parallel_plan, model.config.groups, world)
    on_cpu = world.device.type == "cpu"
    if settings.compiled:
        compile_blocks(model.blocks(), any_size=any_size, whole=on_cpu)
    if recipe.train.recompute:
        recompute_blocks(model.blocks())
    longest = max(stretch.row_length for stretch in settings.stretches)
    kernel = training_kernel(world.device, precision.dtype, longest, compiled=settings.compiled)
    model.set_kernel(kernel, compiled=settings.compiled and on_cpu)
    apply_sharding(trainee, model.blocks(), world, precision.dtype)
    if on_cpu and world.size == 1:
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.sparse = True  # the gradient of the rows that were read; all others would be zeros, each step
    trainee.to_empty(device=world.device)
    fill_weights()
    assert isinstance(recipe.optimizer, OptimizerConfig)
    assert isinstance(recipe.schedule, ScheduleConfig)
    rates = recipe.optimizer.with_rates(adamw_lr, model.config.width)
    average: Any = recipe.train.average
    optimizer = Optimizer(
        model.named_parameters(), rates, settings.lr, settings.compiled, matrices=model.matrices,
        tables=ngram_tables(model), lr_factors=lr_factors,
        average=None if average is None else average.build(settings.total_steps, settings.tokens_per_step),
    )  # fmt: skip
    if precision.dtype != torch.float32:
        optimizer.make_copies(precision.dtype)
    return Training(
        recipe=recipe, folder=folder, world=world, settings=settings, precision=precision, data=data, samples=samples,
        trainee=trainee, objective=objective, optimizer=optimizer,
        schedule=recipe.schedule.build(settings.total_steps, settings.tokens_per_step),
    )  # fmt: skip


def _objective(recipe: Recipe, data: Data) -> Objective:
    config: Any = recipe.objective
    objective: Objective = config.build(data.tokenizer)
    return objective


def _with_implied(config: Any, recipe: Recipe) -> Any:
    """The family's config with what the objective needs it to say: heads that its losses read, and no others."""
    implied = {k: v for k, v in getattr(recipe.objective, "implied", {}).items() if k in type(config).model_fields}
    what = f"objective {recipe.objective.kind} with this model"
    return validate(type(config), {**config.model_dump(), **implied}, what) if implied else config


def _with_precision(recipe: Recipe, config: Any) -> Recipe:
    """The recipe with the family's own precision, where it has one and the recipe leaves it open."""
    own = getattr(config, "precision", None)
    if own is None or recipe.train.precision != "auto":
        return recipe
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": own})})


def _samples(
    recipe: Recipe, data: Data, objective: Objective, rows: Samples, settings: Settings, world: World
) -> list[Samples]:
    """The order of the rows in each stretch of the run, now that its length is known. rows: the order by size alone."""
    stretches = settings.stretches
    for stretch in stretches:
        if stretch.batch_rows % world.data_size:
            raise UserError(
                f"the batch of {stretch.batch_rows} rows must fall evenly over the processes", got=world.data_size
            )
    if len({stretch.row_length for stretch in stretches}) == 1:
        # what a mixture limits or changes on the way is known once the run's length is
        num_samples = settings.tokens_at(settings.total_steps) // settings.row_length
        course = data.mixture.phases(rows.rows_per_stream, num_samples)
        one = objective.samples(data.train, course, row_length=settings.row_length, seed=recipe.seed)
        return [one] * len(stretches)
    if not data.mixture.is_plain:
        raise UserError(
            "corpus.changes and corpus.max_epochs count over a run whose rows have one length",
            got="train.phases of several beside them",
            do="leave one of the two out, or train in two runs (model.from)",
        )
    found = []
    for stretch in stretches:
        by_size = objective.samples(data.train, None, row_length=stretch.row_length, seed=recipe.seed)
        course = data.mixture.phases(by_size.rows_per_stream, None)
        found.append(objective.samples(data.train, course, row_length=stretch.row_length, seed=recipe.seed))
    return found


def _lengths_differ(rows: Samples) -> bool:
    """Whether rows of this order have different lengths, so that micro-batches hold different numbers of tokens."""
    seen = [rows[sample] for sample in range(_LOOK_AT_ROWS)]
    return len({(len(row.tokens), row.num_tokens) for row in seen}) > 1


def check(recipe: Recipe, *, resumed: bool) -> None:
    """UserError for what cannot be, as far as it can be told before any text is read. resumed: whether the run has
    weights already."""
    row_length, start = max(row_lengths_of(recipe)), recipe.model.start
    if start is None:
        config: Any = recipe.model.fields(1, row_length)
    else:
        folder = find_model_dir(start)
        config = load_config(folder)
        must_have_rows(config, load_tokenizer(folder))
    _check_lengths(config, row_length)
    vectors = recipe.model.embeddings
    if vectors is not None and not resumed and (found := VectorFile.open(vectors.path).dimensions) != config.width:
        raise UserError(
            f"word vectors must be as wide as the model, {config.width}",
            got=f"{found} numbers a word in {vectors.path}",
            do=f"set the model's width to {found}, or give other vectors",
        )


def _check_lengths(config: Any, row_length: int) -> None:
    if config.max_positions < row_length:
        raise UserError(
            "train.sequence_length must fit the model's positions",
            got=f"{row_length} against max_positions {config.max_positions}",
        )


def whole_model(training: Training) -> nn.Module:
    """The trained model whole, on CPU in fp32, from the masters, without what is of training alone (dropout); every
    process calls it, each gets it."""
    config = with_dropout(training.model.config, 0.0)
    with torch.device("meta"):
        whole: nn.Module = config.build()
    whole.to_empty(device="cpu")
    parameters = dict(whole.named_parameters())
    for name, master in training.optimizer.whole_masters():
        place_(parameters.pop(name), master.cpu())
    assert not parameters, parameters.keys()
    return whole.eval()
