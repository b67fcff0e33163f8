"""Tensors of a run, written by any number of processes and read by any other number.

Each process writes its shards to one safetensors file; `shards.json` says which piece of which tensor lies where. A
reader takes from any file what overlaps its own shards. No pickle, nothing gathered, and a file that is missing,
short or damaged is named before anything is loaded.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from foundling.core.errors import UserError
from foundling.core.files import read_json, read_manifest, verify_files, whole_folder, write_json, write_manifest
from foundling.parallel.world import World

KIND = "checkpoint"
_INDEX = "shards.json"


@dataclass(frozen=True)
class Piece:
    """A local tensor and where it lies in the whole one."""

    tensor: Tensor
    shape: tuple[int, ...]
    """Shape of the whole tensor."""
    offset: tuple[int, ...]
    """Where the local tensor's first element lies in the whole, per dimension."""


def piece_of(local: Tensor, like: Tensor) -> Piece:
    """The piece that `local` is of a tensor sharded as `like` is (a DTensor, or a plain tensor for the whole)."""
    if not isinstance(like, DTensor):
        return Piece(local, tuple(local.shape), (0,) * local.ndim)
    _, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    return Piece(local, tuple(like.shape), tuple(offset))


def save_pieces(folder: Path, pieces: dict[str, Piece], state: dict[str, Any], world: World) -> None:
    """Writes a checkpoint folder whole or not at all; every rank calls it. `state` is plain data, rank 0's counts.

    A fault on any rank (a full disk) is a UserError on all, and what stood before stays.
    """
    fault: Exception | None = None
    try:
        if world.is_first:
            _save_as_first(folder, pieces, state, world)
        elif name := world.share(""):
            _fill(Path(name), pieces, state, world)
    except (UserError, OSError) as error:
        fault = error
    # Only now do all know: the first process may have failed after the others' files were whole.
    if world.any(fault is not None):
        if isinstance(fault, UserError):
            raise fault
        raise UserError(
            f"{folder} could not be written: {fault or 'another process failed'}", do="nothing half is left"
        )


def _save_as_first(folder: Path, pieces: dict[str, Piece], state: dict[str, Any], world: World) -> None:
    """Opens the temporary folder, tells the others its name, or that there is none, and renames it at the end."""
    told = False
    try:
        with whole_folder(folder) as temporary:
            told = True
            world.share(str(temporary))
            _fill(temporary, pieces, state, world)
    finally:
        if not told:
            world.share("")


def _fill(folder: Path, pieces: dict[str, Piece], state: dict[str, Any], world: World) -> None:
    """Every rank's file, then what describes them all."""
    fault = _write(folder / _file_of(world.rank, world), pieces)
    if world.any(fault is not None):
        raise OSError(fault or "another process could not write its shard")
    entries = {key: {"shape": p.shape, "offset": p.offset, "size": tuple(p.tensor.shape)} for key, p in pieces.items()}
    gathered: list[Any] = [entries]
    if world.mesh is not None:
        gathered = [None] * world.size
        dist.all_gather_object(gathered, entries)
    if world.is_first:
        _describe(folder, gathered, state, world)


def _file_of(rank: int, world: World) -> str:
    return f"state-{rank:05d}-of-{world.size:05d}.safetensors"


def _describe(folder: Path, gathered: list[dict[str, Any]], state: dict[str, Any], world: World) -> None:
    """Index, state and manifest of a folder that holds every rank's file."""
    index: dict[str, Any] = {}
    for rank, found in enumerate(gathered):
        for key, entry in found.items():
            shards = index.setdefault(key, {"shape": entry["shape"], "pieces": {}})["pieces"]
            shards.setdefault(str(entry["offset"]), {"file": _file_of(rank, world), **entry})
    write_json(folder / _INDEX, index)
    write_json(folder / "state.json", state)
    write_manifest(folder, KIND, settings={}, inputs={}, counts={"step": state["step"], "ranks": world.size})


def _write(path: Path, pieces: dict[str, Piece]) -> str | None:
    """Writes one rank's tensors to disk; what went wrong, or None."""
    try:
        save_file({key: p.tensor.detach().contiguous() for key, p in pieces.items()}, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    except SafetensorError as error:
        return str(error)
    return None


def read_state(folder: Path, verify: bool = True) -> dict[str, Any]:
    """The plain data of a checkpoint, after its files were checked against the manifest (size and sha256)."""
    manifest = read_manifest(folder, KIND)
    if verify:
        verify_files(folder, manifest)
    return read_json(folder / "state.json")


def load_pieces(folder: Path, pieces: dict[str, Piece]) -> None:
    """Fills local tensors in place from a checkpoint written by any number of processes.

    A tensor that the checkpoint lacks, that it has too much, or whose shape differs, is a UserError naming it.
    """
    index = read_json(folder / _INDEX)
    missing, extra = sorted(set(pieces) - set(index)), sorted(set(index) - set(pieces))
    if missing or extra:
        raise UserError(
            f"the checkpoint {folder} must hold exactly this run's tensors",
            got=f"missing {missing[:3] or 'none'}, unexpected {extra[:3] or 'none'}",
        )
    with contextlib.ExitStack() as stack:
        files: dict[str, Any] = {}
        for key, piece in pieces.items():
            entry = index[key]
            if tuple(entry["shape"]) != piece.shape:
                raise UserError(f"{key} must have shape {piece.shape}", got=tuple(entry["shape"]))
            filled = 0
            for shard in entry["pieces"].values():
                if shard["file"] not in files:
                    files[shard["file"]] = stack.enter_context(safe_open(folder / shard["file"], framework="pt"))
                filled += _copy_overlap(files[shard["file"]], key, shard, piece)
            if filled != piece.tensor.numel():
                raise UserError(f"the checkpoint {folder} must hold all of {key}", got=f"{filled} of its values")


def _copy_overlap(file: Any, key: str, shard: dict[str, Any], piece: Piece) -> int:
    """Copies what a stored shard and a local piece share; the number of values copied."""
    if piece.tensor.ndim == 0:
        piece.tensor.copy_(file.get_tensor(key))
        return 1
    here, there = [], []
    spans = zip(shard["offset"], shard["size"], piece.offset, piece.tensor.shape, strict=True)
    for stored_at, stored_size, wanted_at, wanted_size in spans:
        first = max(stored_at, wanted_at)
        end = min(stored_at + stored_size, wanted_at + wanted_size)
        if first >= end:
            return 0
        there.append(slice(first - stored_at, end - stored_at))
        here.append(slice(first - wanted_at, end - wanted_at))
    part = file.get_slice(key)[tuple(there)]
    with torch.no_grad():
        piece.tensor[tuple(here)].copy_(part)
    return part.numel()
