"""engine=ray gives what this machine gives."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from foundling.core.errors import UserError
from foundling.corpus import engine
from foundling.corpus.build import Config, build_corpus
from tests.corpus import made_steps
from tests.corpus.test_killed import content
from tests.corpus.test_stages import made_texts

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from foundling.corpus import engine, rows
from foundling.corpus.build import Config, build_corpus
from tests.corpus.made_steps import ALL
rows.BATCH_ROWS, engine.WAVE_BYTES = 31, 20_000
build_corpus([sys.argv[1]], Path(sys.argv[2]), Config(steps=[config() for config in ALL], engine="ray"))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, text in enumerate(made_texts(300)):
        (folder / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'foundling[ray]'")
def test_the_same_bytes_on_a_local_cluster(source: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "ray")], check=True, cwd=ROOT)
    here = build_corpus([source], tmp_path / "here", Config(steps=[config() for config in made_steps.ALL]))
    assert content(tmp_path / "ray") == content(here.dir)


def test_without_ray_it_says_what_to_install(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"engine=ray needs Ray; got none; pip install 'foundling\[ray\]'"):
        build_corpus([source], tmp_path / "out", Config(engine="ray"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
