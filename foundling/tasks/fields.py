"""What the parts of an example are called in a file: the usual names, or those that a recipe gives."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from foundling.tasks.files import RowFault


@cache
def usual_names(role: str) -> tuple[str, ...]:
    """Names by which a role is known, the first one's first."""
    known = yaml.safe_load(files("foundling.tasks").joinpath("fields.yaml").read_text(encoding="utf-8"))
    return tuple(known[role])


def has_field(data: Mapping[str, Any], role: str, given: Mapping[str, str]) -> bool:
    """Whether a row tells this part. given: the recipe's own names, by role."""
    return _name(data, role, given) is not None


def field_of(data: Mapping[str, Any], role: str, given: Mapping[str, str]) -> Any:
    """A part of a row. RowFault: the row does not tell it."""
    name = _name(data, role, given)
    if name is None:
        wanted = given.get(role) or " or ".join(usual_names(role)[:3])
        keys = ", ".join(list(data)[:8]) or "no fields"
        raise RowFault(f"it has no {wanted} (it has {keys}); say what it is called: task.fields={{{role}: NAME}}")
    return data[name]


def _name(data: Mapping[str, Any], role: str, given: Mapping[str, str]) -> str | None:
    names = (given[role],) if role in given else usual_names(role)
    return next((name for name in names if data.get(name) is not None), None)
