"""A model's parallel plan, applied: tensor parallel, compile, recompute, FSDP2, in this order.

Compile sees local tensors only, because tensor parallel has already split the layers. What is computed again is the
compiled block, so that it rounds as it did the first time. FSDP2 comes last, because it must gather and free the
parameters around both.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.utils.checkpoint import checkpoint

from foundling.core.errors import UserError
from foundling.nn.dropout import draws
from foundling.parallel.world import World

_STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "colwise": ColwiseParallel,
    "rowwise": RowwiseParallel,
    # Torch's name for: weights on every device, work on a piece of dimension 1 (here the heads), gradients summed.
    "headwise": lambda: SequenceParallel(sequence_dim=1, use_local_output=True),
}


def apply_tensor_parallel(model: nn.Module, plan: Mapping[str, str], num_units: int, world: World) -> None:
    """Splits the layers that the plan names over the tensor axis, in place. A pattern may match nothing (variants).

    num_units: what cannot be cut smaller (key-value heads); the tensor degree must divide it.
    """
    if world.mesh is None or world.mesh["tensor"].size() == 1:
        return
    degree = world.mesh["tensor"].size()
    if num_units % degree:
        raise UserError("parallel.tensor must divide the model's key-value heads", got=f"{degree} and {num_units}")
    styles: dict[str, ParallelStyle] = {}
    for name, module in model.named_modules():
        for pattern, style in plan.items():
            if fnmatch.fnmatch(name, pattern):
                if isinstance(module, nn.Linear):
                    split = module.out_features if style == "colwise" else module.in_features
                    unit = getattr(module, "unit_rows", 1) if style == "colwise" else 1
                    if split % (degree * unit):
                        raise UserError(f"parallel.tensor must divide {name}'s {split // unit} units", got=degree)
                styles[name] = _STYLES[style]()
    parallelize_module(model, world.mesh["tensor"], styles)


def compile_blocks(blocks: Sequence[nn.Module], *, any_size: bool, whole: bool = True) -> None:
    """Compiles each block by itself, in place: equal blocks share one compilation, and eager code joins them.

    any_size: the number of tokens differs from batch to batch, so one compilation must serve all; otherwise the first
    batch's size is built in, and a batch of another size (the last of an evaluation) is compiled once more for any.
    whole: whether a block must be one graph; otherwise what reads the rows' lengths within it (attention in plain
    torch) runs as it is, between two graphs. Random numbers (dropout) are those that uncompiled blocks draw.
    """
    for block in blocks:
        options: dict[str, str | int | bool | Callable[..., Any]] = {"fallback_random": True}
        block.forward = torch.compile(  # type: ignore[method-assign]
            block.forward,
            dynamic=True if any_size else None,
            fullgraph=whole,
            options=options if draws(block) else None,
        )


def recompute_blocks(blocks: Sequence[nn.Module]) -> None:
    """Activation checkpointing (Chen et al. 2016, arXiv:1604.06174, section 3), in place: each block keeps its input
    alone and is computed again in the backward pass, with the random numbers (dropout) of the first time.

    It costs a forward pass more, up to a third of a step. Loss and gradients are those without it, to the bit: blocks
    to compile must be compiled before, since a compiler that sees both passes fuses, and rounds, in another way.
    UserError: there is no block.
    """
    if not blocks:
        raise UserError("train.recompute needs a model with blocks", got="one without", do="take it out")
    for block in blocks:
        block.forward = partial(  # type: ignore[method-assign]
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=draws(block)
        )


def apply_sharding(root: nn.Module, blocks: Sequence[nn.Module], world: World, dtype: torch.dtype) -> None:
    """FSDP2: each block, then the rest, in place. Gathered in `dtype`; gradients are summed in fp32."""
    if world.mesh is None:
        return
    lower = dtype != torch.float32
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if lower else MixedPrecisionPolicy()
    for block in blocks:
        fully_shard(block, mesh=world.mesh["shard"], mp_policy=policy)
    fully_shard(root, mesh=world.mesh["shard"], mp_policy=policy)


def reshard(root: nn.Module) -> None:
    """Frees the weights outside the blocks, which FSDP2 keeps gathered after a forward pass for the backward.

    Where no backward follows, the next pass would read them as they were, whatever became of the shards.
    """
    if isinstance(root, FSDPModule):
        root.reshard()


def trained_anew(root: nn.Module) -> None:
    """Call it once other parameters are trained than before (`requires_grad`), in a run of several processes.

    FSDP2 knows the type that a module's gradients are summed in from those of its parameters that were trained when it
    last looked: none, where none was. It looks again when it gathers by hand.
    """
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
            module.reshard()
