"""Whole matrices from shards and back: each matrix of a list has one process that owns it, all at once.

Two all-to-alls, one there and one back, whatever the number of matrices: a process sends each owner its piece.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


@dataclass(frozen=True)
class Span:
    """Where a process's piece of a matrix lies."""

    offset: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def numel(self) -> int:
        return self.size[0] * self.size[1]

    def holds_blocks(self, rows: int, columns: int) -> bool:
        """Whether it is made of whole blocks of so many rows, with all the matrix's columns."""
        return self.offset[0] % rows == 0 and self.size[0] % rows == 0 and self.size[1] == columns

    def of(self, whole: Tensor) -> Tensor:
        """The piece, a view."""
        (row, column), (rows, columns) = self.offset, self.size
        return whole[row : row + rows, column : column + columns]


def spans_of(parameters: list[DTensor]) -> list[list[Span]]:
    """Of each matrix the span of every process among which it is sharded, in order of rank. All of them call it."""
    own = []
    for p in parameters:
        size, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)
        own.append(Span(tuple(offset), tuple(size)))
    group = group_of(parameters[0].device_mesh)
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, own, group=group)
    return [list(spans) for spans in zip(*found, strict=True)]


def group_of(mesh: DeviceMesh) -> Any:
    """The processes of a mesh. One with two axes holds all that train."""
    if mesh.ndim == 1:
        return mesh.get_group()
    assert mesh.size() == dist.get_world_size(), "a mesh of two axes holds all processes"
    return dist.group.WORLD


@dataclass(frozen=True)
class _Item:
    """A piece on its way."""

    other: int
    """The process that it goes to or comes from."""
    matrix: int
    numel: int
    span: Span


class Owners:
    """Of matrices of one shape, the first is owned by the first process, the second by the next, and so on."""

    def __init__(self, mesh: DeviceMesh, shape: tuple[int, int], spans: list[list[Span]]) -> None:
        """shape: of each whole matrix. spans: as `spans_of` has them."""
        self._group, self._shape = group_of(mesh), shape
        self._num_ranks, own = dist.get_world_size(self._group), dist.get_rank(self._group)

        def owned_by(rank: int) -> range:
            return range(rank, len(spans), self._num_ranks)

        def item(other: int, matrix: int, rank: int) -> _Item:
            return _Item(other, matrix, spans[matrix][rank].numel, spans[matrix][rank])

        ranks = range(self._num_ranks)
        self._pieces = [item(owner, matrix, own) for owner in ranks for matrix in owned_by(owner)]
        self._parts = [item(rank, matrix, rank) for rank in ranks for matrix in owned_by(own)]

    def collect(self, pieces: list[Tensor]) -> Tensor:
        """The whole matrices [owned, A, B] that this process owns, from every process's pieces of all."""
        sent = [pieces[item.matrix] for item in self._pieces]
        owned = sorted({item.matrix for item in self._parts})
        wholes = pieces[0].new_empty(len(owned), *self._shape)
        for item, part in zip(self._parts, self._swap(sent, self._pieces, self._parts, wholes), strict=True):
            item.span.of(wholes[owned.index(item.matrix)]).copy_(part)
        return wholes

    def hand_back(self, wholes: Tensor) -> list[Tensor]:
        """This process's pieces of all matrices, from the owners' whole ones [owned, A, B]."""
        owned = sorted({item.matrix for item in self._parts})
        sent = [item.span.of(wholes[owned.index(item.matrix)]) for item in self._parts]
        found = zip(self._pieces, self._swap(sent, self._parts, self._pieces, wholes), strict=True)
        pieces = {item.matrix: piece for item, piece in found}
        return [pieces[matrix] for matrix in sorted(pieces)]

    def _swap(self, sent: list[Tensor], out: list[_Item], into: list[_Item], like: Tensor) -> list[Tensor]:
        """What comes in for what goes out. like: a tensor of their type."""
        received = like.new_empty(sum(item.numel for item in into))
        flat = torch.cat([like.new_empty(0), *(tensor.reshape(-1) for tensor in sent)])
        dist.all_to_all_single(received, flat, self._numels(into), self._numels(out), group=self._group)
        parts = received.split([item.numel for item in into])
        return [part.view(item.span.size) for item, part in zip(into, parts, strict=True)]

    def _numels(self, items: list[_Item]) -> list[int]:
        """Elements by the other process."""
        return [sum(item.numel for item in items if item.other == rank) for rank in range(self._num_ranks)]
