"""A build that is killed at any moment and started again gives the same bytes, and does nothing twice."""

import gzip
import json
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from foundling.core.errors import UserError
from foundling.corpus.work import open_work
from tests.corpus.test_stages import made_texts

ROOT = Path(__file__).parents[2]
NUM_TEXTS = 600


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "in"
    folder.mkdir()
    texts = [text + f" number {i % 7}"[: 10 * (i % 2)] for i, text in enumerate(made_texts(NUM_TEXTS))]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    for number, part in enumerate((lines[:100], ["bad\n", *lines[100:450], "bad\n"], [])):
        (folder / f"{number}.jsonl").write_text("".join(part), encoding="utf-8")
    (folder / "3.jsonl.gz").write_bytes(gzip.compress("".join(lines[450:]).encode()))
    return folder


def command(source: Path, out: Path, workers: int, moment: int) -> list[str]:
    return [sys.executable, "-m", "tests.corpus.killed", str(source), str(out), str(workers), str(moment)]


def run(source: Path, out: Path, workers: int, moment: int) -> tuple[int, int] | None:
    """(events, documents that went through the steps) of a build, None where it was killed."""
    done = subprocess.run(command(source, out, workers, moment), cwd=ROOT, capture_output=True, text=True)
    if done.returncode == -9:
        return None
    assert done.returncode == 0, done.stderr
    num_events, num_masked = map(int, done.stdout.split())
    return num_events, num_masked


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def whole(source: Path) -> tuple[dict[str, str], int]:
    """The corpus of a build that nobody disturbs, and the number of its events."""
    out = source.parent / "whole"
    told = run(source, out, 1, 0)
    assert told is not None
    assert told[1] == NUM_TEXTS
    return content(out), told[0]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_killed_once(source: Path, whole: tuple[dict[str, str], int], tmp_path: Path, share: float) -> None:
    out = tmp_path / "out"
    assert run(source, out, 1, round(share * whole[1])) is None
    assert not out.exists()
    told = run(source, out, 1, 0)
    assert content(out) == whole[0]
    assert told is not None
    assert told[1] < NUM_TEXTS * (1.2 - share), "what was finished is not done again"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_again_and_again(source: Path, whole: tuple[dict[str, str], int], tmp_path: Path) -> None:
    out = tmp_path / "out"
    num_starts, moment = 1, 13
    while run(source, out, 1, moment) is None:
        num_starts, moment = num_starts + 1, moment + 17
    assert num_starts > 2
    assert content(out) == whole[0]


def test_killed_from_outside_with_workers(source: Path, whole: tuple[dict[str, str], int], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build = subprocess.Popen(command(source, out, 2, 0), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while build.poll() is None and len(list(tmp_path.glob(".out.*.work/0/chunk-*"))) < 4:
        time.sleep(0.002)
    build.kill()
    assert build.wait() == -signal.SIGKILL, "it had ended before it was killed"
    assert run(source, out, 2, 0) is not None
    assert content(out) == whole[0]


def test_two_builds_of_the_same_wait_for_each_other(tmp_path: Path) -> None:
    with open_work(tmp_path / "out", "same"), pytest.raises(UserError, match="one process at a time"):  # noqa: SIM117
        with open_work(tmp_path / "out", "same"):
            pass
    with open_work(tmp_path / "out", "same"):
        pass


def test_work_of_other_settings_goes(tmp_path: Path) -> None:
    def interrupted() -> None:
        with open_work(tmp_path / "out", "first") as work:
            (work.folder(0) / "chunk-000000.arrow").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(list(tmp_path.iterdir())) == 1
    with open_work(tmp_path / "out", "second") as work:
        assert [path.name for path in tmp_path.iterdir()] == [work.dir.name]
    assert list(tmp_path.iterdir()) == []
