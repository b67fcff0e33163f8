"""One process at a time; a lock never outlives its holder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foundling.core.errors import UserError
from foundling.core.lock import alone_in, take_lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no lock of folders on Windows")

HOLDER = """
import sys, time
from pathlib import Path
from foundling.core.lock import alone_in
with alone_in(Path(sys.argv[1]), "held"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_one_holds_a_lock_until_it_lets_go(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "lock"
    held = take_lock(path)
    assert held is not None
    assert take_lock(path) is None
    os.close(held)
    again = take_lock(path)
    assert again is not None
    os.close(again)


def test_another_process_is_refused_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="must be trained by one process at a time"), alone_in(tmp_path, "trained"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with alone_in(tmp_path, "trained"):
            pass
    assert not list(tmp_path.iterdir()), "nothing is left in the folder"
