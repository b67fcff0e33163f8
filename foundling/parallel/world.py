"""The processes that train together. One process is a world of one and starts no communication."""

import atexit
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from foundling.core.errors import UserError

T = TypeVar("T")

_REST_SECONDS = 0.1


@dataclass(frozen=True)
class World:
    """Who this process is among all."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh | None
    """Axes `shard` and `tensor`; None in a world of one."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all share."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which share of each batch is this process's; ranks of one tensor group read the same rows."""
        return 0 if self.mesh is None else self.mesh["shard"].get_local_rank()

    @property
    def data_size(self) -> int:
        """Into how many shares each batch falls."""
        return 1 if self.mesh is None else self.mesh["shard"].size()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the data shares, the same on every rank, in place."""
        if self.mesh is not None:
            dist.all_reduce(values, group=self.mesh["shard"].get_group())
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says yes: all ranks leave the loop together."""
        return bool(self.max(int(flag)))

    def max(self, number: int) -> int:
        """The largest of the processes' numbers, on each."""
        if self.mesh is None:
            return number
        largest = torch.tensor(number, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest.item())

    def share(self, value: T) -> T:
        """The first process's value (plain data), on each: what is measured may differ between processes."""
        if self.mesh is None:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """What each data share has (plain data), in their order, on each."""
        if self.mesh is None:
            return [value]
        values: list[Any] = [None] * self.data_size
        dist.all_gather_object(values, value, group=self.mesh["shard"].get_group())
        return values

    def barrier(self) -> None:
        if self.mesh is not None:
            dist.barrier()


def _leave() -> None:
    """Leaves the other processes, and lets gloo's threads come to rest before the interpreter may end.

    Such a thread may still be about to drop its last reference to a tensor after the main thread has gone on; it
    needs the interpreter's lock for that, and where the interpreter is ending by then, Python before 3.14 ends
    the thread in a way that aborts the process ("terminate called without an active exception": 3 of 25
    runs of four processes, 0 of 25 with this pause; destroying the group does not join the threads).
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(_REST_SECONDS)


def enter_world(tensor_degree: int = 1) -> World:
    """Joins the processes that `torchrun` started, or is a world of one.

    They stay together until the interpreter ends, for the next run in it (seeds, trials): a process that left and came
    back before the others would find the addresses of the last time, and wait for ever.
    tensor_degree: processes that share each matrix; it must divide the number of processes.
    """
    cuda = torch.cuda.is_available()
    if not dist.is_torchelastic_launched():
        if tensor_degree > 1:
            raise UserError(
                "parallel.tensor must be 1 with one process",
                got=tensor_degree,
                do=f"start with torchrun --nproc-per-node {tensor_degree} -m foundling ...",
            )
        return World(0, 1, torch.device("cuda", 0) if cuda else torch.device("cpu"), None)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=10))
        atexit.register(_leave)
    rank, size = dist.get_rank(), dist.get_world_size()
    if size % tensor_degree:
        raise UserError("parallel.tensor must divide the number of processes", got=f"{tensor_degree} of {size}")
    device = torch.device("cuda", dist.get_node_local_rank()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    mesh = init_device_mesh(device.type, (size // tensor_degree, tensor_degree), mesh_dim_names=("shard", "tensor"))
    return World(rank, size, device, mesh)
