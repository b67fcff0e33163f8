"""Memory that a process does not need any more goes back to the system."""

import ctypes
import sys

import pyarrow as pa

_LARGE_BYTES = 4 << 20
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of <malloc.h>


def return_large() -> None:
    """From now on, what takes 4 MiB or more goes back as soon as it is free: the GNU allocator would keep up to 32."""
    library = _gnu_library()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """What is free inside this process goes back, which large and many allocations leave behind."""
    pa.default_memory_pool().release_unused()
    library = _gnu_library()
    if library is not None:
        library.malloc_trim(0)


def _gnu_library() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
