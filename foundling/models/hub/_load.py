"""`load_model`: a Hugging Face model folder to a live model, every weight accounted for."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from foundling.core.errors import UserError
from foundling.core.files import MANIFEST, read_json, sha256_of
from foundling.core.log import logger
from foundling.core.registry import load_part, part_names
from foundling.models.hub._weights import Weights, some
from foundling.models.hub.base import ConfigReader, Format, Weight

FOLDER = "models.hub"
CONFIG_FILE = "config.json"


def format_of(data: dict[str, Any], what: str) -> Format:
    """The format that reads a config.json. what: the file, for errors."""
    kind = data.get("model_type")
    if kind not in part_names(FOLDER):
        raise UserError(f"{what}: model_type must be one of {', '.join(part_names(FOLDER))}", got=repr(kind))
    form: Format = load_part(FOLDER, kind).Format()
    named, known = data.get("architectures") or [form.architecture], (form.architecture, *form.other_architectures)
    if named not in [[name] for name in known]:
        raise UserError(f"{what}: architectures must be {' or '.join(f'[{n!r}]' for n in known)}", got=repr(named))
    return form


def find_model_dir(path: Path | str) -> Path:
    """The model folder that MODEL means: the folder itself, or the `model/` inside a run folder."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError("MODEL must be a run folder, a model folder or a Hugging Face folder", got=f"{path}, no folder")
    if (path / "config.json").is_file():
        return path
    if (path / "model" / "config.json").is_file():
        return path / "model"
    if (path / "recipe.yaml").is_file():
        raise UserError(f"the run folder {path} must hold a model/", got="none yet", do="finish the run (--resume)")
    raise UserError(f"{path} must be a run folder with a model/, or hold a config.json", got="neither")


def load_config(folder: Path | str) -> Any:
    """The config of a model folder, without its weights."""
    return _read_config(Path(folder))[1]


def _read_config(folder: Path, form: Format | None = None) -> tuple[Format, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"a model folder must hold a {CONFIG_FILE}", got=str(folder))
    data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold a JSON object", got=type(data).__name__)
    if form is not None:
        return form, form.read_config(ConfigReader(data, str(path)), str(path))
    form = format_of(data, str(path))
    try:
        return form, form.read_config(ConfigReader(data, str(path)), str(path))
    except UserError as fault:
        if others := [name for name in part_names(FOLDER) if _reads(name, data)]:
            raise UserError(
                f"{path}: model_type must be that of the model whose keys these are, {' or '.join(others)}",
                got=repr(form.model_type),
                do="give the folder the config.json that it was written with",
            ) from fault
        raise


def _reads(kind: str, data: dict[str, Any]) -> bool:
    """Whether a config.json would be without fault if its model_type were this one."""
    form: Format = load_part(FOLDER, kind).Format()
    named = {**data, "model_type": kind, "architectures": [form.architecture]}
    try:
        form.read_config(ConfigReader(named, kind), kind)
    except UserError:
        return False
    return True


def load_model(folder: Path | str, *, dtype: torch.dtype = torch.float32, form: Format | None = None) -> nn.Module:
    """The model of a Hugging Face folder of a known family, on the CPU, in `dtype`.

    form: how the folder is read; None: as its `model_type` says.
    The files are memory-mapped while they are read; the model holds its own memory. Code in the folder is never run.
    UserError: an unknown family, a config key whose meaning we do not compute, any weight that is missing, unexpected,
    misshapen or not finite, a file of ours that is not the one that was written.
    """
    folder = Path(folder)
    form, config = _read_config(folder, form)
    stored = Weights(folder, form)
    _verify(folder, stored.paths)
    config, useless = form.fitted(config, stored.names)
    if useless:
        stored.leave_out(useless)
        logger.warning("%s: left out, since no head here reads it: %s", folder, some(sorted(useless)))
    weights = form.weights(config)
    with torch.device("meta"):
        model: nn.Module = config.build()
    ours = dict(model.named_parameters())
    assert {weight.ours for weight in weights} == set(ours), "a format must map every parameter"
    mapped = {name for weight in weights for name in weight.theirs}
    copies = {**form.copies, form.head: form.embedding}
    copies = {name: of for name, of in copies.items() if name not in mapped and name in stored.names}
    _match(folder, form, stored, weights, ours, set(copies))
    for name, of in copies.items():
        if not torch.equal(stored.read(name), stored.read(of)):
            raise UserError(
                f"{name} must equal {of}, to which it is tied (tie_word_embeddings in {folder / CONFIG_FILE})",
                got="different values",
                do="set tie_word_embeddings to false if the head is meant to be its own",
            )
    state = {}
    for weight in weights:
        joined = weight.join([stored.read(name) for name in weight.theirs])
        state[weight.ours] = joined.to(dtype, copy=True, memory_format=torch.contiguous_format)
    model.load_state_dict(state, assign=True)
    return model


def _match(
    folder: Path, form: Format, stored: Weights, weights: list[Weight], ours: dict[str, Any], extra: set[str]
) -> None:
    """The folder must hold exactly the weights that the config asks for, each of its shape."""
    expected: dict[str, tuple[int, ...]] = {}
    for weight in weights:
        parts = weight.split(ours[weight.ours])
        expected |= {name: tuple(part.shape) for name, part in zip(weight.theirs, parts, strict=True)}
    names = stored.names
    missing, unexpected = sorted(set(expected) - names), sorted(names - set(expected) - extra)
    misshapen = [
        f"{name} {list(stored.shape(name))}, not {list(shape)}"
        for name, shape in sorted(expected.items())
        if name in names and stored.shape(name) != shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    faults = [f"{kind}: {some(found)}" for kind, found in kinds.items() if found]
    if faults:
        raise UserError(
            f"the weights of {folder} must be those that its {CONFIG_FILE} asks for",
            got="; ".join(faults),
            do=None if form.embedding in names else _who_they_look_like(stored, form),
        )


def _who_they_look_like(stored: Weights, form: Format) -> str | None:
    """Another family whose token embedding these weights hold: a checkpoint under a wrong name."""
    for kind in part_names(FOLDER):
        other: Format = load_part(FOLDER, kind).Format()
        if other.embedding != form.embedding and other.embedding in stored.names_in_files:
            return f"they look like those of model_type {kind!r}, not {form.model_type!r}"
    return None


def _verify(folder: Path, paths: list[Path]) -> None:
    """Our own folders know what their weights must be; folders of others have no such manifest."""
    if not (folder / MANIFEST).is_file():
        return
    manifest = read_json(folder / MANIFEST)
    listed = manifest.get("files", {}) if isinstance(manifest, dict) and manifest.get("kind") == "model" else {}
    for path in paths:
        known = listed.get(path.name)
        if known is not None and (path.stat().st_size != known["bytes"] or sha256_of(path) != known["sha256"]):
            raise UserError(
                f"{path} is damaged: it is not the file that {MANIFEST} tells of",
                do=f"export the model again, or remove {MANIFEST} if the weights were changed on purpose",
            )
