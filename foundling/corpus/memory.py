"""Memory that a process does not need any more."""

import ctypes
import sys

import pyarrow as pa


def give_back() -> None:
    """Hands memory that is free inside this process back to the system, which a large allocation leaves behind."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # of the GNU library
        libc.malloc_trim(0)
