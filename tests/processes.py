"""Starting processes that train, alone or together, for tests: with a time limit, and nothing left behind.

Most of what such a test takes is imports. So processes are forked from one that has imported what a training needs and
has done nothing else (the standard library's fork server): each is as fresh as its own interpreter would be, and ends
after its exit functions. `torchrun` itself is tried in test_processes.py of train.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import torch
import torch.distributed as dist

ROOT = Path(__file__).parent.parent

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.distributed.fsdp",
        "torch.distributed.tensor.parallel",
        "foundling.cli.finetune",
        "foundling.cli.pretrain",
        "foundling.models.bert",
        "foundling.models.gpt",
        "foundling.models.seq2seq",
        "foundling.models.xlnet",
        "foundling.train.finetune",
        "foundling.train.pretrain",
    ]
)


class Started:
    """A process that runs a script or `-m module` with arguments."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._output: IO[bytes] = tempfile.NamedTemporaryFile()  # noqa: SIM115  goes with the object
        given = (list(arguments), dict(environment or {}), self._output.name)
        self._process = _SERVER.Process(target=_run, args=given)
        self._process.start()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def output(self) -> str:
        """What it has written so far."""
        return Path(self._output.name).read_text(encoding="utf-8", errors="replace")

    def send_signal(self, number: signal.Signals) -> None:
        """To the process alone, if it still runs."""
        if self.poll() is None:
            os.kill(self._process.pid, number)  # type: ignore[arg-type]

    def end(self) -> None:
        """The process and all that it started."""
        if self.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # type: ignore[arg-type]
            self._process.join()


def _run(arguments: list[str], environment: dict[str, str], output: str) -> None:
    """In the process: becomes what `python ARGUMENTS` is with one thread, in a group of its own."""
    os.setsid()
    os.chdir(ROOT)
    os.environ.update(environment, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    torch.set_num_threads(1)
    written = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(written, 1)
    os.dup2(written, 2)
    sys.path.insert(0, str(ROOT))
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a forked process of the standard library leaves them out


def start(*arguments: str) -> Started:
    """A process that runs a script or `-m module`."""
    return Started(arguments)


def finish(process: Started, timeout: float = 120.0) -> tuple[int, str]:
    """Exit status and output; a process that takes longer is ended with all that it started."""
    limit = time.monotonic() + timeout
    while process.poll() is None:
        if time.monotonic() > limit:
            process.end()
            raise AssertionError(f"took longer than {timeout} s:\n{process.output()}")
        time.sleep(0.01)
    status = process.poll()
    assert status is not None
    return status, process.output()


def together(num_processes: int, *arguments: str, timeout: float = 120.0) -> str:
    """Runs a script or `-m module` in that many processes, as `torchrun` does; their output, one after another.

    A process that fails ends the others, and is an AssertionError with the output.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "tests", "WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes),
    }  # fmt: skip
    processes = [Started(arguments, {**shared, "RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(num_processes)]
    try:
        limit = time.monotonic() + timeout
        while (statuses := [process.poll() for process in processes]) != [0] * num_processes:
            output = "\n".join(process.output() for process in processes)
            assert not any(statuses), output
            assert time.monotonic() < limit, f"took longer than {timeout} s:\n{output}"
            time.sleep(0.01)
        return "\n".join(process.output() for process in processes)
    finally:
        for process in processes:
            process.end()


def torchrun(num_processes: int, *arguments: str, timeout: float = 120.0) -> str:
    """As `together`, by the command itself."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    process = subprocess.Popen(
        [*launcher, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, cwd=ROOT,
        text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"took longer than {timeout} s:\n{output}") from None
    assert process.returncode == 0, output
    return output
