"""Where a document's source and domain come from: a fixed name, the file's path, or a field of the document.

| setting | tag |
|---|---|
| `wiki` | `wiki` |
| `from:folder` | the first folder below the source, or the source's own name |
| `from:file` | the file's name without suffixes |
| `from:{folder}/{file}` | a pattern of `folder`, `file`, `source`, `parent` (its own folder), `1`, `2`, ... (parts) |
| `re:(\\w+)/\\d{4}/` | the first group (or all of the match) of a regular expression searched in the path |
| `field:NAME` | the document's field of that name (`field:meta.site`: one inside another) |

Where a pattern, an expression or a field gives nothing, the source's name stands in.
"""

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from foundling.corpus.inputs import InputFile
from foundling.corpus.streams import scrub

FROM_FOLDER, FROM_FILE = "from:folder", "from:file"
_FROM, _FIELD, _EXPRESSION = "from:", "field:", "re:"
_NAMES = ("folder", "file", "source", "parent")


@dataclass(frozen=True)
class Tags:
    """The settings of both tags; None: the source's name."""

    source: str | None
    domain: str | None

    @property
    def by_field(self) -> bool:
        """Whether documents of one file may have different tags."""
        return any(value is not None and value.startswith(_FIELD) for value in (self.source, self.domain))

    def of(self, file: InputFile, meta: Mapping[str, Any]) -> tuple[str, str]:
        """Source and domain of a document. meta: its other fields."""
        return tag(self.source, file, meta), tag(self.domain, file, meta)


def checked_tag(value: Any) -> Any:
    """The setting itself. Raises ValueError where it names a place that there is not, or is no expression.

    `{folder}` alone, which YAML reads as a mapping, is taken for the pattern that it looks like.
    """
    if isinstance(value, dict) and len(value) == 1 and next(iter(value.values())) is None:
        value = f"{{{next(iter(value))}}}"
    if isinstance(value, str):
        _tag_of(value)
    return value


def tag(value: str | None, file: InputFile, meta: Mapping[str, Any]) -> str:
    """The tag of a document by a setting; None: the source's name. meta: the document's other fields."""
    return (_tag_of(value)(file, meta) if value is not None else None) or file.source


@cache
def _tag_of(value: str) -> Callable[[InputFile, Mapping[str, Any]], str | None]:
    if value == FROM_FOLDER:
        return lambda file, meta: _parts(file)["folder"]
    if value == FROM_FILE:
        return lambda file, meta: _parts(file)["file"]
    if value.startswith(_FROM) and "{" not in value:
        raise ValueError(
            f"a tag from the path must be {FROM_FOLDER} or {FROM_FILE}, or a pattern: from:{{folder}}-{{1}}"
        )
    if value.startswith(_FIELD):
        name = value.removeprefix(_FIELD)
        if not name:
            raise ValueError("a tag from a field must name it: field:NAME")
        return lambda file, meta: _field(meta, name)
    if value.startswith(_EXPRESSION):
        return _by_expression(value.removeprefix(_EXPRESSION))
    if "{" in value:
        return _by_pattern(value.removeprefix(_FROM))
    return lambda file, meta: value


def _by_expression(text: str) -> Callable[[InputFile, Mapping[str, Any]], str | None]:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise ValueError(f"a tag after `re:` must be a regular expression; {error}") from None

    def tag_of(file: InputFile, meta: Mapping[str, Any]) -> str | None:
        match = expression.search(file.name)
        if match is None:
            return None
        return next((group for group in match.groups() if group), None) if match.groups() else match[0]

    return tag_of


def _by_pattern(text: str) -> Callable[[InputFile, Mapping[str, Any]], str | None]:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"a tag must be a name or a pattern such as {{folder}}; {error}") from None
    wrong = [name for name in names if name not in _NAMES and not name.isdigit()]
    if wrong or "0" in names:
        known = ", ".join(f"{{{name}}}" for name in (*_NAMES, "1", "2"))
        raise ValueError(f"a pattern for a tag may hold {known}, ...; not {{{(wrong or ['0'])[0]}}}")

    def tag_of(file: InputFile, meta: Mapping[str, Any]) -> str | None:
        parts = _parts(file)
        if any(name not in parts for name in names):
            return None
        return "".join(before + (parts[name] if name else "") for before, name, _, _ in string.Formatter().parse(text))

    return tag_of


def _parts(file: InputFile) -> dict[str, str]:
    parts = file.name.split("/")
    folder = parts[1] if len(parts) > 2 else parts[0] if len(parts) == 2 else file.source
    return {
        "folder": folder,
        "file": parts[-1].split(".")[0] or parts[-1],
        "source": file.source,
        "parent": parts[-2] if len(parts) > 1 else file.source,
        **{str(number): part for number, part in enumerate(parts, 1)},
    }


def _field(meta: Mapping[str, Any], name: str) -> str | None:
    value: Any = meta.get(name)
    if value is None and "." in name:
        value = meta
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
    return scrub(str(value)) if isinstance(value, str | int | float) and str(value).strip() else None
