"""Artefacts: folders that describe themselves with a `manifest.json` and that exist only whole.

A folder is written under a temporary name beside its place and renamed when it is complete. Its `key` is a hash of
what it is made from and how, so a stage whose inputs and settings hash the same is not run again.
"""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundling.core.errors import UserError

MANIFEST = "manifest.json"


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """Hex sha256 of plain data, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all: a temporary name, flushed to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Plain data as indented JSON, written whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Plain data from a JSON file; a missing or broken file is a `UserError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing", do="the folder is not whole; make it again") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} must be readable JSON", got=str(error)) from None


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends without an error, and vanishes otherwise.

    An existing `target` is put aside only once the new one is complete, so there is always one that is whole.
    A full disk or a missing permission is a `UserError`; what stood before stays.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        temporary.mkdir()
        yield temporary
        _same_readers(temporary)
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(temporary, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        elsewhere = error.filename is not None and not str(error.filename).startswith(str(temporary))
        cause = f"{error.strerror or error}" + (f" ({error.filename})" if elsewhere else "")
        raise UserError(f"{target} could not be written: {cause}", do="nothing half is left") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _same_readers(folder: Path) -> None:
    """Lets whoever may read the folder read its files: the safetensors library writes them for the owner alone."""
    wanted = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o666 != wanted:
            path.chmod(wanted)


def _sweep(target: Path) -> None:
    """Clears what a killed process left beside `target`; puts back what a kill between the two renames put aside."""
    own = re.compile(rf"\.{re.escape(target.name)}\.\d+\.(old|tmp)")  # not of a folder whose name goes on with a dot
    found = [path for path in target.parent.iterdir() if own.fullmatch(path.name)]
    for left in (path for path in found if path.suffix == ".old"):
        if target.exists():
            shutil.rmtree(left, ignore_errors=True)
        else:
            os.rename(left, target)
    for left in (path for path in found if path.suffix == ".tmp"):
        process = left.name.split(".")[-2]
        if process == str(os.getpid()) or not _alive(process):  # in a container a new process has the old one's number
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: str) -> bool:
    if not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)  # signal 0 asks whether the process is there, and does nothing to it
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def write_manifest(
    folder: Path, kind: str, *, settings: Any, inputs: dict[str, str], counts: dict[str, Any], hash_files: bool = True
) -> dict[str, Any]:
    """Writes `manifest.json` into a folder that is otherwise complete, and returns it.

    kind: what the folder is (`corpus`, `tokenizer`, ...). settings: what made it. inputs: name -> sha256 or key of
    what it was made from. counts: what a reader wants to know first. Every other file is listed with size and sha256.
    """
    listed = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            entry: dict[str, Any] = {"bytes": path.stat().st_size}
            if hash_files:
                entry["sha256"] = sha256_of(path)
            listed[path.relative_to(folder).as_posix()] = entry
    manifest = {
        "kind": kind,
        "key": artefact_key(kind, settings, inputs),
        "settings": settings,
        "inputs": inputs,
        "counts": counts,
        "files": listed,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def artefact_key(kind: str, settings: Any, inputs: dict[str, str]) -> str:
    """The identity of an artefact: the same kind, settings and inputs give the same key."""
    return hash_of([kind, settings, inputs])


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of a folder that must be a `kind`; anything else is a `UserError` that says what it is."""
    if not folder.is_dir():
        raise UserError(f"a {kind} folder must exist", got=f"{folder}, which is not a folder")
    if not (folder / MANIFEST).exists():
        raise UserError(f"a {kind} folder must hold a {MANIFEST}", got=str(folder))
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        found = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise UserError(f"{folder} must be a {kind} folder", got=f"a {found} folder")
    return manifest


def holds(folder: Path, kind: str) -> bool:
    """Whether `folder` is a whole artefact of this kind."""
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_json(folder / MANIFEST)
    return isinstance(manifest, dict) and manifest.get("kind") == kind


def is_current(folder: Path, kind: str, key: str) -> bool:
    """Whether `folder` is a whole artefact of this kind made from the same inputs with the same settings."""
    path = folder / MANIFEST
    if not path.exists():
        return False
    manifest = read_json(path)
    return isinstance(manifest, dict) and manifest.get("kind") == kind and manifest.get("key") == key


def verify_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Every file of a manifest must be there with its size and sha256; the first that differs is named."""
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.exists():
            raise UserError(f"{path} is missing", do="make the folder again")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise UserError(f"{path} must have {entry['bytes']} bytes", got=f"{size}", do="make the folder again")
        if "sha256" in entry and sha256_of(path) != entry["sha256"]:
            raise UserError(f"{path} is damaged: its sha256 is not the manifest's", do="make the folder again")
