"""The work folder of a build: what is finished already, should the build be killed and started again.

It lies beside the corpus folder and is keyed by inputs, settings and code. What workers made of the rows is kept in
chunks, in order. A build that is started again takes the chunks as if they had just been made and goes on behind the
last one, so the corpus is the same to the byte. A chunk appears by a rename: one that exists is whole.
"""

import os
import re
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from foundling.core.errors import UserError
from foundling.core.files import hash_of, read_json, write_json
from foundling.core.lock import take_lock
from foundling.core.log import logger
from foundling.corpus.rows import CLEANED, START, Place

CHUNK_BYTES = 16 << 20
"""Bytes of rows after which a chunk is finished."""
CHUNK_SECONDS = 10.0
"""Or when it is this old: the most of a worker's time that a kill can cost."""
_LOCK = "lock"


class Chunks:
    """Batches of `CLEANED` of one segment on disk, in order."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        for half in folder.glob("*.part"):
            half.unlink()
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._sink: Any = None
        self._num_bytes, self._since = 0, 0.0
        self._paths = sorted(folder.glob("chunk-*.arrow"))

    @property
    def next_place(self) -> Place:
        """The first row that no chunk holds."""
        if not self._paths:
            return START
        with pa.memory_map(str(self._paths[-1])) as source:
            reader = pa.ipc.open_file(source)
            last = reader.get_batch(reader.num_record_batches - 1)
            return Place(last["file"][-1].as_py(), last["row"][-1].as_py() + 1)

    def read(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All finished chunks' batches, or some of their columns."""
        fields = None if columns is None else [CLEANED.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        for path in list(self._paths):
            with pa.OSFile(str(path)) as source:
                reader = pa.ipc.open_file(source, options=options)
                for number in range(reader.num_record_batches):
                    yield reader.get_batch(number)

    def kept(self, batches: Generator[pa.RecordBatch, None, None]) -> Generator[pa.RecordBatch, None, None]:
        """The finished chunks, then `batches`, which go on behind them and are kept as they pass."""
        yield from self.read()
        with closing(batches):
            for batch in batches:
                self._write(batch)
                yield batch
            self._end_chunk()

    def remove(self) -> None:
        for path in self._paths:
            path.unlink()
        self._paths = []

    def _write(self, batch: pa.RecordBatch) -> None:
        if self._writer is None:
            self._sink = pa.OSFile(str(self._folder / "next.part"), "wb")
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_file(self._sink, CLEANED, options=options)
            self._num_bytes, self._since = 0, time.monotonic()
        self._writer.write_batch(batch)
        self._num_bytes += batch.nbytes
        if self._num_bytes >= CHUNK_BYTES or time.monotonic() - self._since >= CHUNK_SECONDS:
            self._end_chunk()

    def _end_chunk(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._sink.close()
        self._writer = None
        part, path = self._folder / "next.part", self._folder / f"chunk-{len(self._paths):06d}.arrow"
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.rename(part, path)
        self._paths.append(path)


class Work:
    """The folder of one build. A part folder for each segment holds its chunks, and later what came of them."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder

    def folder(self, segment: int) -> Path:
        path = self.dir / str(segment)
        path.mkdir(exist_ok=True)
        return path

    def state(self, segment: int) -> Any:
        """What `finish` kept of a segment, or None."""
        path = self.folder(segment) / "state.json"
        return read_json(path) if path.exists() else None

    def finish(self, segment: int, state: Any) -> None:
        """A segment's figures, plain data, after which its chunks are not needed any more."""
        write_json(self.folder(segment) / "state.json", state)


@contextmanager
def open_work(out: Path, identity: Any) -> Iterator[Work]:
    """The work folder of the corpus folder `out`; `identity`, plain data, decides what may be gone on with.

    It is removed when the block ends well or with bad input, and stays after a kill, an interrupt or a full disk.
    Work for `out` of another identity is removed. Raises UserError where another process builds the same.
    """
    folder = out.with_name(f".{out.name}.{hash_of(identity)[:16]}.work")
    keep = True
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        existed = folder.is_dir()
        folder.mkdir(exist_ok=True)
        lock = take_lock(folder / _LOCK)
    except OSError as error:
        raise UserError(f"{out} could not be written: {error.strerror or error}") from error
    if lock is None:
        raise UserError(f"{out} must be built by one process at a time", got="another one that is building it")
    try:
        _sweep(out, folder)
    except (UserError, OSError) as error:
        os.close(lock)
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"{out} could not be written: {error.strerror or error}") from error
        raise
    if existed and any(folder.glob("*/*")):
        logger.info("goes on from what was finished before")
    try:
        yield Work(folder)
        keep = False
    except UserError as error:
        keep = isinstance(error.__cause__, OSError)
        raise
    finally:
        if keep and any(folder.glob("*/chunk-*")):
            logger.warning("what is finished so far is kept in %s; the same command goes on from it", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(out: Path) -> None:
    """Removes what killed builds of a corpus left that is whole by now."""
    _sweep(out, None)


def _sweep(out: Path, stays: Path | None) -> None:
    own = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]{{16}}\.work")  # not of a corpus whose name goes on with a dot
    for left in [path for path in out.parent.iterdir() if own.fullmatch(path.name)] if out.parent.is_dir() else []:
        if left == stays:
            continue
        lock = take_lock(left / _LOCK)
        if lock is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
        elif stays is not None:
            raise UserError(f"{out} must be built by one process at a time", got="another one, with other settings")


def code_identity(modules: Path) -> str:
    """A hash of the source files below a folder: work of other code is not gone on with."""
    files = sorted(path for path in modules.rglob("*") if path.suffix in (".py", ".yaml"))
    return hash_of([[path.relative_to(modules).as_posix(), path.read_text(encoding="utf-8")] for path in files])
