"""Metrics survive a kill and are cut where a resumed run goes on; a library stays silent."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foundling.core.errors import UserError
from foundling.core.log import JsonLines, logger, setup


def steps_of(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "m.jsonl")
    sink.write(1, {"train/loss": 2.5, "note": "é"})
    assert (tmp_path / "m.jsonl").read_text(encoding="utf-8") == '{"step": 1, "train/loss": 2.5, "note": "é"}\n'
    sink.close()


def test_a_killed_run_keeps_what_it_wrote(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from foundling.core.log import JsonLines\n"
        "sink = JsonLines(Path(sys.argv[1]))\n"
        "for step in range(5): sink.write(step, {'x': 1})\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.jsonl")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert steps_of(tmp_path / "m.jsonl") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("half", ["", '{"step": 4, "train/lo', '{"other": 1}'])
def test_a_resumed_run_cuts_what_it_will_write_again(tmp_path: Path, half: str) -> None:
    lines = "".join(f'{{"step": {step}}}\n' for step in (0, 1, 2, 2, 3))
    (tmp_path / "m.jsonl").write_text(lines + half, encoding="utf-8")
    sink = JsonLines(tmp_path / "m.jsonl", num_kept=4)
    sink.write(3, {})
    sink.close()
    assert steps_of(tmp_path / "m.jsonl") == [0, 1, 2, 2, 3]


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"step": 7}\n', encoding="utf-8")
    sink = JsonLines(tmp_path / "m.jsonl")
    sink.write(0, {})
    sink.close()
    assert steps_of(tmp_path / "m.jsonl") == [0]


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = JsonLines(tmp_path / "m.jsonl")

    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sink.close()
    monkeypatch.setattr(sink, "_file", Full())
    with pytest.raises(UserError, match=r"m.jsonl could not be written: No space left on device"):
        sink.write(1, {})


def test_setup_twice_shows_each_message_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    setup()
    setup("DEBUG")
    assert len(logger.handlers) == 1
    assert logger.level == logging.DEBUG


def test_a_library_is_silent_until_set_up() -> None:
    code = "from foundling.core.log import logger; logger.info('hidden'); assert not logger.handlers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
