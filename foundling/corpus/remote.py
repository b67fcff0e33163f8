"""Files elsewhere (`s3://`, `hf://`, `gs://`, `https://`, ...), listed and read through Daft.

Credentials and regions are found as Daft finds them (for S3: AWS's usual chain), or as `daft.set_planning_config` has
set them. Daft is imported on the first use: most corpora lie on a disk.
"""

import io
import os
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from foundling.core.errors import UserError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")
_BUFFER_BYTES = 4 << 20


def is_url(source: str) -> bool:
    """Whether a source lies elsewhere: `s3://...`, and not a path or `-`."""
    return _URL.match(source) is not None


@dataclass(frozen=True)
class RemoteFile:
    """One file elsewhere, opened like a `Path`."""

    url: str
    num_bytes: int

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.url).path.rstrip("/").rsplit("/", 1)[-1])

    @property
    def identity(self) -> str:
        """What stands for the file's content, which is not read twice: its address and size."""
        return f"{self.url} {self.num_bytes}"

    def open(self, mode: Literal["rb"]) -> io.BufferedReader:
        """Raises OSError where it cannot be reached."""
        return io.BufferedReader(_Reading(self.url), _BUFFER_BYTES)

    def __str__(self) -> str:
        return self.url


class _Reading(io.RawIOBase):
    """Daft's file as Python's: it can be read and sought, and its faults are OSErrors."""

    def __init__(self, url: str) -> None:
        daft = _daft()
        try:
            settings = daft.context.get_context().daft_planning_config.default_io_config  # as listing has it
            self._file: Any = daft.File(url, io_config=settings).open().__enter__()
        except Exception as error:  # Daft's own faults, ValueErrors and OSErrors alike
            raise OSError(_reason(error)) from error

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:
            raise OSError(_reason(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())


def list_files(source: str) -> list[RemoteFile]:
    """The files of an address, sorted: one file, all below a folder (`s3://bucket/books/`), or those of a glob.

    Raises UserError where it cannot be reached and where nothing is there.
    """
    daft = _daft()
    fault = None
    found: dict[str, list[Any]] = {"path": [], "size": []}
    for pattern in (source,) if _MAGIC.search(source) else (source.rstrip("/") + "/**", source):
        try:
            found = daft.from_glob_path(pattern).to_pydict()
        except Exception as error:  # nothing found and no answer alike are ValueErrors of several kinds
            fault = _reason(error)
        if found["path"]:
            break
    files = sorted(
        (RemoteFile(url, size or 0) for url, size in zip(found["path"], found["size"], strict=True)),
        key=lambda file: file.url,
    )
    if not files:
        raise UserError(
            "a source elsewhere must be a file, folder or glob that can be reached",
            got=f"{source} ({fault})" if fault else source,
        )
    return files


def _daft() -> Any:
    # Read by daft: no telemetry, and the console is ours.
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ["DAFT_PROGRESS_BAR"] = "0"
    os.environ["DAFT_SHOW_QUERY_ID"] = "0"
    import daft

    return daft


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
