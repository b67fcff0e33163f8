"""What keeps workers that share a machine's memory from needing much of it at the same time."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

if sys.platform != "win32":
    import fcntl


@contextmanager
def alone(file: str) -> Iterator[None]:
    """Waits until no other process is inside this block with the same file; one that dies inside leaves it."""
    with open(file, "ab") as held:
        if sys.platform != "win32":
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def give_back() -> None:
    """Hands memory that is free inside this process back to the system, which a large allocation leaves behind."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # of the GNU library
        libc.malloc_trim(0)
