"""Starting processes that train together, for tests: with a time limit, and nothing left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    """One thread a process and the package on the path."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """A process of its own group, its output captured."""
    return subprocess.Popen(
        list(command), env=environment(), cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], timeout: float = 120.0) -> tuple[int, str]:
    """Exit status and output; a process that takes longer is ended with all that it started."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"took longer than {timeout} s:\n{output}") from None
    return process.returncode, output


def torchrun(num_processes: int, *arguments: str, timeout: float = 120.0) -> str:
    """Runs a script or `-m module` in that many processes; its output. A failure is an AssertionError with it."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    status, output = finish(start([*launcher, *arguments]), timeout)
    assert status == 0, output
    return output
