"""Settings of a corpus as people type them: `valid_fraction=0.02 steps=plain steps.quality.min_words=20`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundling.core.config import override, resolved, validate
from foundling.core.errors import UserError
from foundling.core.registry import nearest
from foundling.corpus.build import Config, preset

WHAT = "corpus settings"
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*=")


def is_setting(text: str) -> bool:
    """Whether a word of the command line looks like `key=value` and not like a path."""
    return _ASSIGNMENT.match(text) is not None


def is_there(word: str) -> bool:
    """Whether a path exists; what no file system takes for a name (too long) does not."""
    try:
        return Path(word).exists()
    except OSError:
        return False


def read_settings(assignments: Sequence[str]) -> Config:
    """The settings, from `key=value` words in order. Raises one UserError that names every fault.

    A step is reached by its name or its place: `steps.quality.min_words=20`, `steps.3.min_words=20`.
    """
    data: dict[str, Any] = {}
    faults: list[str] = []
    for text in assignments:
        try:
            data = override(data, [_placed(data, text)])
        except UserError as error:
            faults.append(str(error).replace("the recipe's keys", "the keys of a corpus"))
    try:
        config: Config = validate(Config, data, WHAT)
    except UserError as error:
        if not faults:
            raise
        first, *rest = str(error).split("\n")
        faults += [line.strip() for line in rest] or [first.removeprefix(f"{WHAT}: ")]
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise UserError(f"{WHAT}: {faults[0]}" if len(faults) == 1 else f"{WHAT}: {len(faults)} faults\n{lines}")
    return config


def _placed(data: dict[str, Any], text: str) -> str:
    """`steps.NAME.key=value` as `steps.PLACE.key=value`; the steps are written out in `data` where they are not yet."""
    path, _, value = text.partition("=")
    keys = path.split(".")
    if keys[0] != "steps" or len(keys) < 2:
        return text
    data["steps"] = steps = _written_out(data.get("steps", "crawl"))
    names = [step if isinstance(step, str) else step.get("kind") for step in steps]
    if not keys[1].isdigit():
        places = [number for number, name in enumerate(names) if name == keys[1]]
        if len(places) != 1:
            near = nearest(keys[1], [str(name) for name in names])
            hint = f"did you mean {near!r}?" if near else "add it to steps first"
            raise UserError(
                f"{path}: {keys[1]!r} must be one of the steps ({', '.join(map(str, names))})",
                got=f"{len(places)} of that name",
                do="name it by its place, counted from 0" if places else hint,
            )
        keys[1] = str(places[0])
    elif int(keys[1]) >= len(steps):
        raise UserError(f"{path}: there are {len(steps)} steps, counted from 0: {', '.join(map(str, names))}")
    number = int(keys[1])
    if isinstance(steps[number], str):
        steps[number] = {"kind": steps[number]}
    return f"{'.'.join(keys)}={value}"


def _written_out(steps: Any) -> list[Any]:
    if isinstance(steps, list):
        return steps
    try:
        return [resolved(step) for step in preset(steps)]
    except ValueError as error:
        raise UserError(f"steps {error}", got=repr(steps)) from None
