"""Weights in files, theirs by name: safetensors, whole or in shards, or the older torch files (weights only)."""

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from foundling.core.errors import UserError
from foundling.core.files import read_json, write_json
from foundling.core.log import logger
from foundling.models.hub.base import Format

SAFETENSORS = "model.safetensors"
TORCH_FILE = "pytorch_model.bin"
INDEX = ".index.json"


class WeightFile(ABC):
    """One file of named tensors."""

    names: list[str]

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]: ...

    @abstractmethod
    def read(self, name: str) -> Tensor: ...


class SafetensorsFile(WeightFile):
    """Memory-mapped: a tensor is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(str(path), framework="pt")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} must be a whole safetensors file", got=_one_line(error)) from error
        self.names = list(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


class TorchFile(WeightFile):
    """torch.save's format, read by its restricted loader: tensors and plain containers, no code."""

    def __init__(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # the loader raises whatever the file makes it raise
            raise UserError(f"{path} must hold weights and nothing else", got=_one_line(error)) from error
        if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
            raise UserError(f"{path} must hold weights by name", got=type(state).__name__)
        logger.info("%s: an old file, read as weights and nothing else; what is saved from it is safetensors", path)
        self._state: dict[str, Tensor] = state
        self.names = list(state)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._state[name].shape)

    def read(self, name: str) -> Tensor:
        return self._state[name]


class Weights:
    """All weights of a folder, under the names that its language model has for them."""

    def __init__(self, folder: Path, form: Format) -> None:
        """form: its base_prefix is given to the names of a bare base model (the head has none), and it says what
        weights were called in older files, and which hold no trained value."""
        self.paths, files = _open(folder)
        stored = {name: file for file in files for name in file.names}
        bare = not any(name.startswith(form.base_prefix) for name in stored)
        self._at: dict[str, tuple[WeightFile, str]] = {}
        for name, file in stored.items():
            full = name if not bare or name == form.head else form.base_prefix + name
            for pattern, now in form.renames:
                full = re.sub(pattern, now, full)
            if not any(re.fullmatch(pattern, full) for pattern in form.unused_weights):
                self._at[full] = (file, name)

    def leave_out(self, names: set[str]) -> None:
        self._at = {name: place for name, place in self._at.items() if name not in names}

    @property
    def names(self) -> set[str]:
        return set(self._at)

    @property
    def names_in_files(self) -> set[str]:
        return {stored for _, stored in self._at.values()}

    def shape(self, name: str) -> tuple[int, ...]:
        file, stored = self._at[name]
        return file.shape(stored)

    def read(self, name: str) -> Tensor:
        """The tensor as it is stored; UserError where it is not of floating point or holds NaN or infinity."""
        file, stored = self._at[name]
        tensor = file.read(stored)
        if not tensor.is_floating_point():
            raise UserError(f"the weight {name} must be of floating point", got=str(tensor.dtype))
        if not torch.isfinite(tensor).all():
            raise UserError(f"the weight {name} must be finite", got="NaN or infinity", do="the file is damaged")
        return tensor


def _open(folder: Path) -> tuple[list[Path], list[WeightFile]]:
    """The files of a folder's weights: safetensors before torch files, one file before shards."""
    for name, reader in ((SAFETENSORS, SafetensorsFile), (TORCH_FILE, TorchFile)):
        if (folder / name).is_file():
            return [folder / name], [reader(folder / name)]
        if (folder / (name + INDEX)).is_file():
            return _open_shards(folder, folder / (name + INDEX), reader)
    raise UserError(f"{folder} must hold {SAFETENSORS}, {SAFETENSORS}{INDEX} or {TORCH_FILE}", got="none of them")


def _open_shards(folder: Path, index: Path, reader: Any) -> tuple[list[Path], list[WeightFile]]:
    data = read_json(index)
    listed = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(v, str) and Path(v).name == v for v in listed.values()):
        raise UserError(f"{index} must map each weight to a file beside it in `weight_map`")
    paths = [folder / name for name in sorted(set(listed.values()))]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is missing", do=f"{index.name} lists it; copy the folder again")
    files: list[WeightFile] = [reader(path) for path in paths]
    held = {path.name: set(file.names) for path, file in zip(paths, files, strict=True)}
    lost = [name for name, file in listed.items() if name not in held[file]]
    if lost:
        raise UserError(f"{index} must name the file of each weight", got=f"{some(lost)}, not in the file it names")
    return paths, files


def write_weights(folder: Path, tensors: dict[str, Any], max_shard_bytes: int) -> None:
    """Writes safetensors: one file, or shards with an index where it would be larger than `max_shard_bytes`.

    tensors: name -> (bytes, function that makes the tensor); one shard's tensors exist at a time.
    """
    shards: list[list[str]] = [[]]
    room = max_shard_bytes
    for name, (num_bytes, _) in tensors.items():
        if shards[-1] and num_bytes > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= num_bytes
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        whole = len(shards) == 1
        file = SAFETENSORS if whole else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        try:
            save_file({name: tensors[name][1]() for name in names}, str(folder / file), metadata={"format": "pt"})
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / file} could not be written: {_one_line(error)}") from error
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(num_bytes for num_bytes, _ in tensors.values())
        write_json(folder / (SAFETENSORS + INDEX), {"metadata": {"total_size": total}, "weight_map": where})


def some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - 6
    return ", ".join(names[:6]) + (f" and {more} more" if more > 0 else "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
