"""A storage that cannot be used: exit status 2, one line with its URL but not its password, and the way out."""

import sys
from pathlib import Path

import pytest
import yaml

from foundling.cli.main import main
from tests.tiny import recipe_data

pytest.importorskip("optuna")


@pytest.fixture
def search_file(tmp_path: Path) -> Path:
    data = recipe_data(tmp_path / "corpus", tmp_path / "tokenizer", tmp_path / "unused")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(data))
    search = {
        "recipe": str(tmp_path / "tiny.yaml"),
        "out": str(tmp_path / "search"),
        "search": {"optimizer.lr": {"choices": [1e-3]}},
    }
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(search))
    return tmp_path / "tune.yaml"


def fault(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    assert main(["tune", *arguments]) == 2
    line, *more = capfd.readouterr().err.splitlines()
    assert not more
    assert line.startswith("foundling: the storage must be a database that can be used; got ")
    return line


@pytest.mark.parametrize(
    ("url", "shown", "told"),
    [
        (
            "postgresql+psycopg2://me:s3cret@host/db",
            "postgresql+psycopg2://me:***@host/db",
            "psycopg2 is not installed; pip install psycopg2-binary",
        ),
        (
            "postgresql+psycopg://host/db?user=me&password=s3cret",
            "postgresql+psycopg://host/db?user=me&password=***",
            "psycopg is not installed; pip install 'psycopg[binary]'",
        ),
        ("postgrsql://me:s3cret@host/db", "postgrsql://me:***@host/db", "postgrsql; write postgresql://USER"),
        (
            "postgresql+psycopg://me:s3/cret@host/db",
            "postgresql+psycopg://me:***@host/db",
            "pip install 'psycopg[binary]'",
        ),
        ("postgresql://me:s3{cret}@host/db", "postgresql://me:***@host/db", "no URL that can be read; write"),
        ("postgresql://me:s3@cret@host:s3/db", "postgresql://me:***@host:s3/db", "no URL that can be read; write"),
        ("shared.db", "shared.db", "Could not parse SQLAlchemy URL"),
        ("sqlite:////no/such/folder/x.db", "sqlite:////no/such/folder/x.db", "unable to open database file; see that"),
    ],
)
def test_a_storage_that_cannot_be_used(
    search_file: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    shown: str,
    told: str,
) -> None:
    for driver in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, driver, None)
    line = fault(capfd, str(search_file), f"storage={url}")
    assert f"got {shown}: " in line
    assert told in line
    assert "cret" not in line
    assert not (search_file.parent / "search").exists()


def test_a_broken_study(search_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = search_file.parent / "search" / "study.db"
    study.parent.mkdir()
    study.write_bytes(b"no database" * 1000)
    line = fault(capfd, str(search_file))
    assert f"got {study}: file is not a database; remove {study} to search from the beginning" in line
