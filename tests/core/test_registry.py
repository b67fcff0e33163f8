"""A part is a file: found by its name, listed even when broken, added by other packages through entry points."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundling.core.errors import UserError
from foundling.core.registry import load_part, nearest, part_names

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder `foundling.toys` of parts, outside the repository."""
    import foundling

    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "__init__.py").write_text("")
    monkeypatch.setattr(foundling, "__path__", [*foundling.__path__, str(tmp_path)])
    part_names.cache_clear()
    yield tmp_path / "toys"
    part_names.cache_clear()
    for name in [name for name in sys.modules if name.startswith("foundling.toys")]:
        del sys.modules[name]


def test_the_folders_of_this_package() -> None:
    assert part_names("optim.schedules") == ["constant", "cosine", "inverse_sqrt", "linear", "polynomial", "wsd"]
    assert {"bpe", "wordpiece", "unigram", "char"} <= set(part_names("tokenizers"))
    assert load_part("optim.schedules", "cosine").Config().kind == "cosine"


def test_files_that_define_a_config_are_parts(folder: Path) -> None:
    (folder / "ball.py").write_text("class Config:\n    kind = 'ball'\n")
    (folder / "top.py").write_text("from foundling.toys.ball import Config\n")
    (folder / "helper.py").write_text("def help():\n    class Config: ...\n")
    (folder / "_hidden.py").write_text("class Config: ...\n")
    (folder / "base.py").write_text("class Config: ...\n")
    (folder / "box").mkdir()
    (folder / "box" / "__init__.py").write_text("class Config: ...\n")
    assert part_names("toys") == ["ball", "top"]
    assert load_part("toys", "top").Config.kind == "ball"


def test_a_wrong_name_answers_with_the_nearest(folder: Path) -> None:
    (folder / "ball.py").write_text("class Config: ...\n")
    (folder / "kite.py").write_text("class Config: ...\n")
    with pytest.raises(UserError, match=r"^toys must be one of ball, kite; got 'bal'; did you mean 'ball'\?$"):
        load_part("toys", "bal")
    with pytest.raises(UserError, match=r"^toys must be one of ball, kite; got 'zzz'$"):
        load_part("toys", "zzz")


def test_a_part_whose_import_breaks_is_listed_and_names_the_cause(folder: Path) -> None:
    (folder / "drone.py").write_text("import rotors_not_installed\n\nclass Config: ...\n")
    assert part_names("toys") == ["drone"]
    with pytest.raises(UserError, match=r"toys/drone could not be imported: No module named 'rotors_not_installed'"):
        load_part("toys", "drone")


def test_other_packages_add_parts_through_entry_points(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "ball.py").write_text("class Config: ...\n")
    site = tmp_path / "site"
    (site / "their_kite-1.dist-info").mkdir(parents=True)
    (site / "their_kite-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: their-kite\nVersion: 1\n")
    points = "[foundling.toys]\nkite = their_kite\n"
    (site / "their_kite-1.dist-info" / "entry_points.txt").write_text(points)
    (site / "their_kite.py").write_text("class Config:\n    kind = 'kite'\n")
    monkeypatch.syspath_prepend(str(site))
    part_names.cache_clear()
    assert part_names("toys") == ["ball", "kite"]
    assert load_part("toys", "kite").Config.kind == "kite"


def test_nearest() -> None:
    assert nearest("warmupp", ["decay", "warmup"]) == "warmup"
    assert nearest("xyz", ["decay", "warmup"]) is None
    assert nearest("a", []) is None


def modules_after(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh Python has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


HEAVY = {"torch", "numpy", "daft", "pyarrow", "matplotlib", "tokenizers", "jinja2", "transformers"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import foundling")
    assert not loaded & (HEAVY | {"pydantic", "yaml", "rich", "typer"})
    assert "foundling" in loaded


def test_the_core_loads_nothing_heavy() -> None:
    names = (p.stem for p in (ROOT / "foundling" / "core").glob("*.py") if p.stem != "__init__")
    assert not modules_after("import " + ", ".join(f"foundling.core.{name}" for name in names)) & HEAVY


def test_the_command_line_loads_nothing_heavy() -> None:
    assert not modules_after("import foundling.cli.main") & HEAVY


def test_names_of_the_package_are_found_on_first_use() -> None:
    import foundling

    assert foundling.UserError is UserError
    assert set(foundling.__all__) <= set(dir(foundling))
    with pytest.raises(AttributeError, match=r"module 'foundling' has no attribute 'pretrian'"):
        _ = foundling.pretrian
