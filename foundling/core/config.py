"""Strict configs: an unknown key, a wrong type or an impossible value is told with its path, all faults at once.

`Strict` is the base of every config; `Part("objectives")` marks a field whose `kind` names a part file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from foundling.core.errors import UserError
from foundling.core.registry import load_part, nearest


@cache
def _other_names() -> dict[str, str]:
    return yaml.safe_load(files("foundling.core").joinpath("hf_names.yaml").read_text(encoding="utf-8"))


class Strict(BaseModel):
    """A frozen config that refuses what it does not know. Field docstrings are the field's documentation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=False, populate_by_name=True
    )

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Gives each unknown key of this level the name it most likely meant."""
        if not isinstance(value, dict | cls):
            raise PydanticCustomError(
                "mapping", "expected a mapping with the keys {keys}", {"keys": ", ".join(_keys(cls))}
            )
        try:
            return handler(_no_truth_for_a_number(cls, value) if isinstance(value, dict) else value)
        except ValidationError as error:
            raise ValidationError.from_exception_data(error.title, [_named(cls, e) for e in error.errors()]) from None


class PartConfig(Strict):
    """The config of a part file. `kind` is the file's name; `build` makes the live object."""

    kind: str = ""
    """Name of the part: the file's name without `.py`."""

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """The live object; each folder of parts says what it passes and what comes back."""
        raise NotImplementedError(type(self))


def _no_truth_for_a_number(cls: type[BaseModel], value: dict[Any, Any]) -> dict[Any, Any]:
    """`yes` and `true` as the words they were, where a number is asked for: otherwise they would pass as 1."""
    numeric = {
        key
        for name, field in cls.model_fields.items()
        for key in (name, field.alias)
        if _types(field.annotation) - {NoneType} and _types(field.annotation) <= {int, float, NoneType}
    }
    return {k: str(v).lower() if isinstance(v, bool) and k in numeric else v for k, v in value.items()}


def _types(annotation: Any) -> set[Any]:
    """What a value may be, without what else must hold of it."""
    if get_origin(annotation) is Annotated:
        return _types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {found for part in get_args(annotation) for found in _types(part)}
    return {annotation}


def _keys(cls: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in cls.model_fields.items()]


_NONE_NEAR = "known keys: "


def _named(cls: type[BaseModel], error: Any) -> InitErrorDetails:
    location, key = error["loc"], str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "unknown_key" and _NONE_NEAR in error["msg"]:
        # from a level below; paths are told from the outermost one, which is the last to come by
        known = error["msg"][error["msg"].index(_NONE_NEAR) :]
        own = ".".join(map(str, location))  # which another part of its kind may have
        custom = PydanticCustomError("unknown_key", "unknown key; {hint}", {"hint": _elsewhere(cls, key, own) + known})
        return InitErrorDetails(type=custom, loc=location, input=error["input"])
    if error["type"] != "extra_forbidden" or len(location) != 1:
        message = error["msg"].removeprefix("Value error, ")
        custom = PydanticCustomError(error["type"], "{message}", {"message": message})
        return InitErrorDetails(type=custom, loc=location, input=error["input"])
    known = _keys(cls)
    near = nearest(key, known)
    if key in _other_names():
        hint = f"here it is called {_other_names()[key]}"
    elif near and not _below(cls, key):
        hint = f"did you mean {near!r}?"
    else:
        hint = f"{_elsewhere(cls, key, key)}{_NONE_NEAR}{', '.join(known)}"
    custom = PydanticCustomError("unknown_key", "unknown key; {hint}", {"hint": hint})
    return InitErrorDetails(type=custom, loc=location, input=error["input"])


def _elsewhere(cls: type[BaseModel], key: str, own: str) -> str:
    """What is to be said of paths that end in a key. own: where it was found unknown."""
    at = [path for path in dict.fromkeys(_below(cls, key)) if path != own]
    return f"elsewhere there is {' and '.join(at)}; " if at else ""


def _below(cls: type[BaseModel], key: str) -> list[str]:
    """Paths under which the configs in a config's fields know a key; of a part, the default one's."""
    found = []
    for name, field in cls.model_fields.items():
        parts = [part for part in field.metadata if isinstance(part, Part) and part.default is not None]
        inner = [load_part(part.folder, part.default).Config for part in parts if part.default is not None]
        inner += [kind for kind in _types(field.annotation) if isinstance(kind, type) and issubclass(kind, Strict)]
        for config in inner:
            path = field.alias or name
            found += [f"{path}.{key}"] if key in _keys(config) else [f"{path}.{more}" for more in _below(config, key)]
    return found


@dataclass(frozen=True)
class Part:
    """Metadata for a field whose value is the config of a part: `Annotated[PartConfig, Part("optim")]`.

    The value is a mapping with `kind` (the part's file name), or the bare name; `default` stands in for a missing
    `kind`.
    """

    folder: str
    default: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(resolved)
        return core_schema.no_info_plain_validator_function(self.read, serialization=dump)

    def read(self, value: Any) -> PartConfig:
        if isinstance(value, PartConfig):
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, dict):
            raise ValueError(f"expected a part's name or a mapping with `kind`; got {value!r}")
        kind = value.get("kind", self.default)
        if not isinstance(kind, str):
            raise PydanticCustomError("missing", "{message}", {"message": "`kind` must name the part"})
        try:
            config: type[PartConfig] = load_part(self.folder, kind).Config
        except UserError as error:
            raise PydanticCustomError("part", "{message}", {"message": str(error)}) from error
        return config.model_validate({**value, "kind": kind})


def explain(error: ValidationError, what: str) -> UserError:
    """One line a fault: its path, what is wrong, what came."""
    faults = error.errors()
    lines = []
    for fault in faults:
        path = "".join(f"{step}." for step in fault["loc"])[:-1]
        told = fault["type"] in ("unknown_key", "missing", "part") or isinstance(fault["input"], dict)
        got = "" if told else f"; got {_short(fault['input'])}"
        message = fault["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
        place = f"{path}: " if path else ""  # no path: the whole of it
        lines.append(f"{place}{message}{got if '; got ' not in message else ''}")
    if len(lines) == 1:
        return UserError(f"{what}: {lines[0]}")
    return UserError(f"{what}: {len(lines)} faults\n" + "\n".join(f"  {line}" for line in lines))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def validate(cls: type[Strict], data: Any, what: str) -> Any:
    """`data` as a config of class `cls`; a `UserError` that names every fault otherwise."""
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise explain(error, what) from None


class _OneOfEach(yaml.SafeLoader):
    """YAML in which a key comes once; the parser would take the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                raise yaml.MarkedYAMLError(problem=f"{key.value} comes a second time", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file; what is not one is a `UserError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("the recipe must be a file that exists", got=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the recipe {path} could not be read: {error}") from None
    try:
        data = yaml.load(text, _OneOfEach)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise UserError(f"{path} must be YAML", got=f"{place}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} must be YAML", got=" ".join(str(error).split())) from None
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold a YAML mapping", got=type(data).__name__)
    return data


def override(data: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of `data` with `a.b=c` assignments applied; values are read as YAML. A list index is a number."""
    result = _copy(data)
    for text in assignments:
        path, equals, value_text = text.partition("=")
        if not equals or not path:
            raise UserError("an override must look like dotted.key=value", got=repr(text))
        try:
            value = yaml.safe_load(value_text)
        except yaml.YAMLError:
            raise UserError(f"the value of {path} must be YAML", got=repr(value_text)) from None
        _assign(result, path.split("."), value, text)
    return result


def _assign(node: Any, steps: list[str], value: Any, text: str) -> None:
    for step in steps[:-1]:
        if isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
            continue
        if not isinstance(node, dict):
            raise UserError(f"the override {text!r} must follow the recipe's keys", got=f"no mapping at {step!r}")
        below = node.get(step)
        if isinstance(below, str):  # `optimizer: adamw` is short for `optimizer: {kind: adamw}`
            below = {"kind": below}
        node[step] = below if isinstance(below, dict | list) else {}
        node = node[step]
    last = steps[-1]
    if isinstance(node, list) and last.isdigit() and int(last) < len(node):
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError(f"the override {text!r} must follow the recipe's keys", got=f"no mapping at {last!r}")


def _copy(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list) else node


def resolved(config: BaseModel) -> dict[str, Any]:
    """The config as plain data, every default spelled out: what is saved beside a run and read back."""
    return config.model_dump(mode="json", by_alias=True)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two resolved configs differ, one line each: `train.clip: 1.0 -> 2.0`."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted({*old, *new}, key=str):
            lines += differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return lines
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
