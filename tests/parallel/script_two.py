"""Run by torchrun with two processes: FSDP2 and tensor parallel against one process, optimizer steps, and checkpoints.

Arguments: what to do, and a folder. Each process asserts; a failed assertion is a failed process.
"""

import sys
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from foundling.core.errors import UserError
from foundling.models.gpt import Gpt
from foundling.nn.init import fill_
from foundling.objectives.base import Scale
from foundling.objectives.causal import Causal
from foundling.optim.adafactor import Config as AdafactorConfig
from foundling.optim.adamw import Config as AdamWConfig
from foundling.optim.base import Group
from foundling.optim.muon import Config as MuonConfig
from foundling.optim.muon import Muon
from foundling.optim.optimizer import Optimizer
from foundling.parallel import checkpoint
from foundling.parallel.apply import apply_sharding, apply_tensor_parallel, recompute_blocks
from foundling.parallel.checkpoint import load_pieces, piece_of, save_pieces
from foundling.parallel.world import World, enter_world
from foundling.train.state import Trainee
from tests.parallel.small import VARIANTS, batch, model, reference


def trainee(variant: str, world: World, recompute: bool = False) -> tuple[Gpt, Trainee]:
    with torch.device("meta"):
        net = model(variant)
    wrapped = Trainee(net, Causal(), compiled=False)
    apply_tensor_parallel(net, net.parallel_plan, net.config.groups, world)
    if recompute:
        recompute_blocks(net.blocks())
    apply_sharding(wrapped, net.blocks(), world, torch.float32)
    wrapped.to_empty(device="cpu")
    net.initialize(torch.Generator().manual_seed(0))
    return net, wrapped


def same_as_one_process(world: World, degree: int) -> None:
    for variant, recompute in product(VARIANTS, (False, True)):
        net, wrapped = trainee(variant, world, recompute)
        loss, norm, gradients, weights = reference(variant)
        split = {n: p for n, p in net.named_parameters() if isinstance(p, DTensor) and p.device_mesh.ndim == 2}
        if degree == 1:
            assert all(isinstance(p, DTensor) for p in net.parameters())
        else:
            assert {n for n in weights if ".qkv.w" in n or (".mlp." in n and "weight" in n)} <= set(split)
            qkv = dict(net.named_parameters())["layers.0.attention.qkv.weight"]
            assert qkv.to_local().shape[0] == qkv.shape[0] // 2, "the layer is really split"
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(parameter.full_tensor(), weights[name], atol=0, rtol=0, msg=name)
        optimizer = Optimizer(net.named_parameters(), AdamWConfig(), 1e-3, compiled=False)
        rows = batch(world.data_rank, world.data_size)
        total = world.data_size * rows.num_targets
        value = wrapped(rows, Scale(world.data_size / total, 1.0)).parts["causal"]
        value.backward()
        optimizer.collect()
        value = world.sum(value.detach() / world.data_size).item()
        assert abs(value - loss) < 1e-6, (variant, value, loss)
        assert abs(optimizer.gradient_norm() - norm) < 1e-6 * max(1, norm), (variant, optimizer.gradient_norm(), norm)
        for slot in optimizer.slots:
            whole = whole_of(slot.gradient, slot.parameter)
            torch.testing.assert_close(whole, gradients[slot.name], atol=1e-6, rtol=1e-5, msg=f"{variant} {slot.name}")


def whole_of(piece: Tensor, like: Tensor) -> Tensor:
    """From every process's piece of a tensor that is sharded as another is."""
    assert isinstance(like, DTensor)
    return DTensor.from_local(
        piece, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    ).full_tensor()


def steps_are_those_of_one_process(world: World, degree: int) -> None:
    """Weights and state after two steps of the rules that must know more than their shard."""
    variant = "odd" if degree == 1 else "qwen3"
    # a matrix that no other is like: one process owns it, the other owns none of its shape
    single = Group(match="layers.1.attention.out.weight", hidden=False)
    for config in (AdafactorConfig(weight_decay=0.1), MuonConfig(groups=(single,))):
        net, wrapped = trainee(variant, world)
        alone = model(variant)
        alone.initialize(torch.Generator().manual_seed(0))
        ours, theirs = (
            Optimizer(n.named_parameters(), config, 0.05, compiled=False, matrices=n.matrices) for n in (net, alone)
        )
        if isinstance(ours.rule, Muon):
            swapped = {slot.name for b in ours.rule._batches if b.owners is not None for slot in b.slots}
            assert ("layers.0.attention.qkv.weight" in swapped) == (degree == 1), "only these shards cut a head"
            assert {"layers.0.attention.out.weight", "layers.1.mlp.up.weight", "layers.1.mlp.down.weight"} <= swapped
        rows, all_rows = batch(world.data_rank, world.data_size), batch()
        for _ in range(2):
            wrapped(rows, Scale(world.data_size / all_rows.num_targets, 1.0)).parts["causal"].backward()
            ours.collect()
            ours.step(1.0, 0.5)
            Causal().loss(alone, all_rows, Scale(1 / all_rows.num_targets, 1.0), False).parts["causal"].backward()
            theirs.step(1.0, 0.5)
        wanted = theirs.tensors()
        assert ours.tensors().keys() == wanted.keys()
        for name, (piece, like) in ours.tensors().items():
            largest = wanted[name][0].abs().max().item()
            message = f"{config.kind} {name}"
            torch.testing.assert_close(whole_of(piece, like), wanted[name][0], atol=2e-5 * largest, rtol=0, msg=message)


def pieces_of(net: Gpt) -> dict[str, checkpoint.Piece]:
    return {n: piece_of(p.detach().to_local(), p) for n, p in net.named_parameters()}  # type: ignore[attr-defined]


def save(world: World, folder: Path) -> None:
    net, _ = trainee("gpt2", world)
    save_pieces(folder, pieces_of(net), {"step": 3}, world)


def load(world: World, folder: Path) -> None:
    net, _ = trainee("gpt2", world)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.to_local().fill_(-1.0)  # type: ignore[attr-defined]
    load_pieces(folder, pieces_of(net))
    weights = reference("gpt2")[3]
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter.full_tensor(), weights[name]), name  # type: ignore[attr-defined]


def full_disk(world: World, folder: Path) -> None:
    """A fault on either rank, or while the first describes the folder: all are told, and what stood stays."""
    net, _ = trainee("gpt2", world)
    save_pieces(folder, pieces_of(net), {"step": 3}, world)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    write, describe, open_folder = checkpoint._write, checkpoint._describe, checkpoint.whole_folder

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for bad_rank in (0, 1):
        if world.rank == bad_rank:
            checkpoint._write = lambda path, pieces: "No space left on device"
        told = failing_save(folder, net, world)
        assert "could not be written" in told, told
        checkpoint._write = write
    for name in ("_describe", "whole_folder"):
        if world.is_first:
            setattr(checkpoint, name, no_space)
        assert "could not be written" in failing_save(folder, net, world)
        checkpoint._describe, checkpoint.whole_folder = describe, open_folder
    world.barrier()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "no leftovers"


def failing_save(folder: Path, net: Gpt, world: World) -> str:
    try:
        save_pieces(folder, pieces_of(net), {"step": 4}, world)
    except UserError as error:
        return str(error)
    raise AssertionError("the fault was not told")


def fill(world: World) -> None:
    """A sharded parameter is filled with its piece of what a whole one gets; a small one leaves a rank empty."""
    from torch.distributed.tensor import Shard, distribute_tensor

    assert world.mesh is not None
    for shape in ((7, 4), (1, 3), (8, 2), (5,)):
        for dim in range(len(shape)):
            whole, sharded = (
                torch.zeros(shape),
                distribute_tensor(torch.zeros(shape), world.mesh["shard"], [Shard(dim)]),
            )
            for tensor in (whole, sharded):
                fill_("some.weight", tensor, 1.0, torch.Generator().manual_seed(5))
            assert torch.equal(sharded.full_tensor(), whole), (shape, dim)


if __name__ == "__main__":
    what, place = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    joined = enter_world(2 if what == "tensor" else 1)
    if what == "shard":
        fill(joined)
        same_as_one_process(joined, 1)
        steps_are_those_of_one_process(joined, 1)
        load(joined, place / "by-one")
        save(joined, place / "by-two")
        full_disk(joined, place / "disk" / "checkpoint-3")
    else:
        same_as_one_process(joined, 2)
        steps_are_those_of_one_process(joined, 2)
        load(joined, place / "by-one")
        save(joined, place / "by-tensor")
