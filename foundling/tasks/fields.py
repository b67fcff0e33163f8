"""What the parts of an example (roles) are called in a file: the usual names, or those that the user gives."""

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator

from foundling.core.registry import nearest
from foundling.tasks.files import Data, RowFault

_SHOWN = 12
# A source and a target are texts: a mapping under such a name (`translation: {en: ..., de: ...}`) holds them.
_NO_MAPPINGS = ("source", "target")


@cache
def _table() -> dict[str, list[str]]:
    return yaml.safe_load(files("foundling.tasks").joinpath("fields.yaml").read_text(encoding="utf-8"))


def usual_names(role: str) -> tuple[str, ...]:
    """Names by which a role is known, the first one's first."""
    return tuple(_table()[role])


def is_usual(name: str) -> bool:
    """Whether some role is called so."""
    return _plain(name) in _every_name()


@cache
def _every_name() -> frozenset[str]:
    return frozenset(name for names in _table().values() for name in names)


def _known_roles(given: dict[str, str]) -> dict[str, str]:
    for role in given:
        if role not in _table():
            near = nearest(role, list(_table()))
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(_table())}"
            raise ValueError(f"fields must say what a part of an example is called, and {role!r} is none; {hint}")
    return given


NamedFields = Annotated[dict[str, str], AfterValidator(_known_roles)]
"""Names by role, in a config: `{text: body}`. A name with dots is a path: `translation.en`."""


def has_field(data: Mapping[str, Any], role: str, given: Mapping[str, str]) -> bool:
    """Whether a row has a part; null counts as none. given: the user's own names, by role."""
    return _found(data, role, given) is not None


def field_of(data: Mapping[str, Any], role: str, given: Mapping[str, str]) -> Any:
    """A part of a row. Raises RowFault where it has none, naming what it has.

    given: the user's own names, by role. Other roles have their usual names, in upper or lower case. Of the rows of a
    file is kept under which names they had their parts, and `examples_of` tells it.
    """
    found = _found(data, role, given)
    if found is None:
        wanted = repr(given[role]) if role in given else " or ".join(usual_names(role)[:3])
        keys = list(_keys(data))
        there = ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
        raise RowFault(f"it has no {wanted} (it has {there or 'nothing'}); set task.fields={{{role}: NAME}}")
    name, value = found
    if isinstance(data, Data):
        data.chosen[role, name] += 1
    return value


def _found(data: Mapping[str, Any], role: str, given: Mapping[str, str]) -> tuple[str, Any] | None:
    """The name and the value of a part."""
    if role in given:
        value = _at(data, given[role])
        return None if value is None else (given[role], value)
    names = usual_names(role)
    for name in names:
        if _fits(data.get(name), role):
            return name, data[name]
    by_name = _by_plain_name(tuple(data))
    for name in names:
        key = by_name.get(name)
        if key is not None and _fits(data[key], role):
            return key, data[key]
    return None


def _fits(value: Any, role: str) -> bool:
    return value is not None and not (role in _NO_MAPPINGS and isinstance(value, Mapping))


def _at(data: Mapping[str, Any], path: str) -> Any:
    """The value of a field, or of one inside another where there is no field of the whole name."""
    if path in data or "." not in path:
        return data.get(path)
    value: Any = data
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@lru_cache(maxsize=64)
def _by_plain_name(keys: tuple[str, ...]) -> dict[str, str]:
    return {_plain(key): key for key in reversed(keys)}


def _plain(name: str) -> str:
    """A name as the table has it: `Gold Label` is `gold_label`."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _keys(data: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a row, of mappings those inside."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{key}.{inner}" for inner in value)
        else:
            yield str(key)
