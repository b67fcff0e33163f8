"""One process at a time: a lock that the system lets go when its holder ends, however it ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundling.core.errors import UserError

if sys.platform != "win32":
    import fcntl


def take_lock(path: Path) -> int | None:
    """An open file that holds the lock of a folder, or of a file (made where there is none), until it is closed or the
    process dies; None where another has it. File systems without locks give it to all."""
    if sys.platform == "win32":
        return os.open(os.devnull, os.O_RDONLY)
    lock = os.open(path, os.O_RDONLY) if path.is_dir() else os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:  # some network file systems lock no folder
        pass
    return lock


@contextmanager
def alone_in(folder: Path, work: str) -> Iterator[None]:
    """Holds a folder's lock. work: what is done in it. UserError: another process is at it."""
    lock = take_lock(folder)
    if lock is None:
        raise UserError(
            f"{folder} must be {work} by one process at a time",
            got="another one at work there",
            do="wait for its end, or choose another out=DIR",
        )
    try:
        yield
    finally:
        os.close(lock)
