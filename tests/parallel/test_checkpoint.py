"""Checkpoints of one process: exact, and every damage is named before anything is loaded."""

import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.parallel import checkpoint
from foundling.parallel.checkpoint import Piece, load_pieces, read_state, save_pieces
from foundling.parallel.world import World

ALONE = World(0, 1, torch.device("cpu"), None)
SHARD = "state-00000-of-00001.safetensors"


def tensors(fill: float | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {
        "w": torch.randn(5, 3, generator=generator), "copy": torch.randn(4, generator=generator).bfloat16(),
        "count": torch.tensor(7.0), "rng": torch.randint(0, 255, (9,), generator=generator).byte(),
    }  # fmt: skip
    if fill is not None:
        for tensor in found.values():
            tensor.fill_(fill)
    return found


def pieces(of: dict[str, Tensor]) -> dict[str, Piece]:
    return {name: Piece(t, tuple(t.shape), (0,) * t.ndim) for name, t in of.items()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_pieces(tmp_path / "checkpoint-3", pieces(tensors()), {"step": 3, "lr": 0.1}, ALONE)
    return tmp_path / "checkpoint-3"


def test_what_is_saved_is_loaded_to_the_bit(saved: Path) -> None:
    assert read_state(saved) == {"step": 3, "lr": 0.1}
    empty = tensors(0)
    load_pieces(saved, pieces(empty))
    for name, tensor in tensors().items():
        assert torch.equal(empty[name], tensor), name


@pytest.mark.parametrize("name", [SHARD, "shards.json", "state.json"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        read_state(saved)


def test_a_folder_without_its_manifest_is_no_checkpoint(saved: Path) -> None:
    (saved / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"must hold a manifest\.json"):
        read_state(saved)


@pytest.mark.parametrize("name", [SHARD, "shards.json", "state.json"])
def test_a_truncated_file_is_named(saved: Path, name: str) -> None:
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[:-5])
    with pytest.raises(UserError, match=f"{name} must have {len(data)} bytes; got {len(data) - 5}"):
        read_state(saved)


@pytest.mark.parametrize("name", [SHARD, "shards.json", "state.json"])
def test_a_flipped_byte_is_named(saved: Path, name: str) -> None:
    data = bytearray((saved / name).read_bytes())
    data[-3] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        read_state(saved)


def test_tensors_must_be_exactly_those_of_the_run(saved: Path) -> None:
    fewer = tensors()
    del fewer["w"]
    with pytest.raises(UserError, match=r"exactly this run's tensors; got missing none, unexpected \['w'\]"):
        load_pieces(saved, pieces(fewer))
    with pytest.raises(UserError, match=r"missing \['extra'\], unexpected none"):
        load_pieces(saved, pieces({**tensors(), "extra": torch.zeros(2)}))
    with pytest.raises(UserError, match=r"w must have shape \(3, 5\); got \(5, 3\)"):
        load_pieces(saved, pieces({**tensors(), "w": torch.zeros(3, 5)}))


@pytest.mark.parametrize(("rows", "columns"), [((0, 2), (0, 3)), ((1, 4), (1, 2)), ((4, 5), (2, 3)), ((5, 5), (0, 3))])
def test_any_piece_can_be_read(saved: Path, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    whole = tensors()
    part = torch.zeros(rows[1] - rows[0], columns[1] - columns[0])
    wanted = {**pieces(tensors(0)), "w": Piece(part, (5, 3), (rows[0], columns[0]))}
    load_pieces(saved, wanted)
    assert torch.equal(part, whole["w"][slice(*rows), slice(*columns)])


def _told(*_: object) -> str:
    return "No space left on device"


def _raised(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("name", "fault"), [("_write", _told), ("save_file", _raised), ("_describe", _raised)])
def test_a_full_disk_leaves_the_previous_checkpoint_whole(
    saved: Path, name: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    monkeypatch.setattr(checkpoint, name, fault)
    for folder in (saved, saved.with_name("checkpoint-4")):
        with pytest.raises(UserError, match=r"could not be written: No space left on device; nothing half is left"):
            save_pieces(folder, pieces(tensors(1)), {"step": 4}, ALONE)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_file_that_may_not_grow_is_told_too(saved: Path) -> None:
    """A real fault of the system's, not a pretended one: no file of this process may pass 200 bytes."""
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(UserError, match=r"checkpoint-4 could not be written: .*; nothing half is left"):
            save_pieces(saved.with_name("checkpoint-4"), pieces(tensors(1)), {"step": 4}, ALONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
