"""A part is a file: `objectives/mlm.py` is the objective `mlm`. The only place that imports by name.

A folder's parts are its modules whose names start with no underscore and that define `Config`; other packages
add parts through the entry point group `foundling.FOLDER`.
"""

import difflib
import importlib
import pkgutil
import re
import sys
from functools import cache
from importlib.abc import InspectLoader
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from foundling.core.errors import UserError

_CONFIG = re.compile(r"^(class Config\b|Config\b *[:=]|from .* import .*\bConfig\b)", re.MULTILINE)


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that a typo most likely meant, or None."""
    folded = {one.casefold(): one for one in reversed(known)}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.55)
    return folded[found[0]] if found else None


def _defines_config(module: pkgutil.ModuleInfo) -> bool:
    """Whether a module's text names a `Config` at its top: read, not imported, so a broken part is still listed."""
    spec = module.module_finder.find_spec(module.name, None)
    source = spec.loader.get_source(module.name) if spec and isinstance(spec.loader, InspectLoader) else None
    return source is None or _CONFIG.search(source) is not None


@cache
def _entry_points(path: tuple[str, ...]) -> Any:
    """`EntryPoints` of all packages on a search path: reading them takes 15 ms, and a run asks a hundred times."""
    return entry_points()


@cache
def part_names(folder: str) -> list[str]:
    """Names of all parts of a folder of this package (dots for sub-folders: `optim.schedules`), sorted."""
    package = importlib.import_module(f"foundling.{folder}")
    own = [
        module.name
        for module in pkgutil.iter_modules(package.__path__)
        if not module.ispkg and not module.name.startswith("_") and module.name != "base" and _defines_config(module)
    ]
    return sorted({*own, *(point.name for point in _entry_points(tuple(sys.path)).select(group=f"foundling.{folder}"))})


def load_part(folder: str, name: str) -> ModuleType:
    """The module of one part. A wrong name answers with the nearest; a part that fails to import says why."""
    names = part_names(folder)
    what = "optimizer" if folder == "optim" else folder.rsplit(".", 1)[-1]
    if name not in names:
        hint = nearest(name, names)
        raise UserError(
            f"{what} must be one of {', '.join(names)}",
            got=repr(name),
            do=f"did you mean {hint!r}?" if hint else None,
        )
    for point in _entry_points(tuple(sys.path)).select(group=f"foundling.{folder}"):
        if point.name == name:
            path = point.value
            break
    else:
        path = f"foundling.{folder}.{name}"
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise UserError(f"the part {what}/{name} could not be imported: {error}", do="install what it names") from error
