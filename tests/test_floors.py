"""The floors stay one-way: a module imports only what stands on a lower floor (deferred imports count)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "foundling"
FLOORS = [
    {"core"},
    {"corpus", "tokenizers", "optim"},
    {"data"},
    {"nn"},
    {"models", "heads", "peft"},
    {"parallel"},
    {"objectives"},
    {"decoding"},
    {"tasks"},
    {"continual", "experts", "evaluation"},
    {"train"},
    {"serve"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


def imported_floors(source: str) -> set[str]:
    """Names of the floors that a module's text imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name lives"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {parts[1] for parts in (n.split(".") for n in names) if parts[0] == "foundling" and len(parts) > 1}
    return found & set(LEVEL)


def upward(source: str, home: str) -> set[str]:
    return {f for f in imported_floors(source) if f != home and LEVEL[f] >= LEVEL[home]}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1:
        return
    assert parts[0] in LEVEL, f"{parts[0]} has no floor: give it one here and in docs/architecture.md"
    assert not upward(path.read_text(encoding="utf-8"), parts[0])


def test_a_planted_upward_import_is_caught() -> None:
    planted = "def f():\n    from foundling.train.loop import train\n"
    assert upward(planted, "optim") == {"train"}
    assert upward("import foundling.corpus.build", "tokenizers") == {"corpus"}
    assert not upward("from foundling.core.errors import UserError", "optim")


def test_core_needs_no_torch() -> None:
    for path in (ROOT / "core").rglob("*.py"):
        assert "import torch" not in path.read_text(encoding="utf-8"), path
