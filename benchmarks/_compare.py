"""What benchmarks share: commands in fresh processes, their time and memory, what can be said of a ratio, and of the
machine that it was measured on."""

import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

SAMPLE_SECONDS = 0.2
_ROOT = Path(__file__).parent.parent
_ARITHMETIC = re.compile(r"(avx|amx|fma|f16c|asimd|sve|bf16|i8mm)")
"""Of a processor's flags, those that decide how fast it multiplies."""


def child(command: list[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The last line of JSON that a command prints. Raises SystemExit where it fails or prints none.

    environment: variables that it has besides those of this process.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


def interval(ratios: list[float], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws) - 1]


def steady(seconds: list[float]) -> float:
    """The median step, seconds, of those behind the first third (at least three), in which things are compiled."""
    return statistics.median(seconds[min(max(3, len(seconds) // 3), len(seconds) - 1) :])


def peak_gib() -> float:
    """Most memory of this process so far: where there is a GPU what torch allocated there, else its resident set."""
    import torch

    if torch.cuda.is_available() and (allocated := torch.cuda.max_memory_allocated()):
        return allocated / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@cache
def machine() -> dict[str, Any]:
    """What a figure was measured on, for its line of JSON: the code, torch, the processor and its threads."""
    from foundling.train.machine import describe

    return {"code": _revision(), **describe(), "cores": len(os.sched_getaffinity(0)), "flags": _flags()}


def _revision() -> str | None:
    """The commit of this checkout, with a plus where files differ from it; None: it is none, or git is not there."""
    git = shutil.which("git")
    told = []
    for question in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        if git is None:
            return None
        done = subprocess.run([git, "-C", str(_ROOT), *question], capture_output=True, text=True, check=False)
        if done.returncode:
            return None
        told.append(done.stdout.strip())
    return told[0] + ("+" if told[1] else "")


def _flags() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    said = next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")
    return sorted(flag for flag in said.split() if _ARITHMETIC.match(flag))


@dataclass(frozen=True)
class Cost:
    """Of one command, from its start to its end."""

    seconds: float
    peak_gib: float
    """Greatest sum over all its processes of proportional set sizes: pages that several share count once."""
    peak_rss_gib: float
    """Greatest sum of resident set sizes, where shared pages count once for each process."""
    num_processes: int
    """Most at one time."""


def cost_of(command: list[str], sample_seconds: float = SAMPLE_SECONDS) -> Cost:
    """Runs a command in a session of its own and samples the memory of all its processes (Linux).

    Raises SystemExit with the end of what it wrote to standard error where it fails.
    """
    with TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        peak = peak_rss = most = 0
        try:
            while True:
                pss, rss, count = _memory(process.pid)
                peak, peak_rss, most = max(peak, pss), max(peak_rss, rss), max(most, count)
                try:
                    process.wait(sample_seconds)
                    break
                except subprocess.TimeoutExpired:
                    continue
            seconds = time.perf_counter() - start
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            errors.seek(0)
            told = errors.read()[-3000:].decode("utf-8", "replace")
            raise SystemExit(f"{shlex.join(command)} failed ({process.returncode}):\n{told}")
    return Cost(seconds, peak / 2**30, peak_rss / 2**30, most)


def _memory(session: int) -> tuple[int, int, int]:
    """(proportional, resident) bytes of all processes of a session and their descendants, and how many there are."""
    members, parents = {session}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(entry.name)] = int(fields[1])
        if int(fields[3]) == session:
            members.add(int(entry.name))
    while more := {number for number, parent in parents.items() if parent in members} - members:
        members |= more  # what left the session with a parent in it
    pss = rss = count = 0
    for number in members:
        try:
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        except OSError:  # it ended meanwhile, or is waited for
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        pss, rss, count = pss + sizes["Pss"] * 1024, rss + sizes["Rss"] * 1024, count + 1
    return pss, rss, count
