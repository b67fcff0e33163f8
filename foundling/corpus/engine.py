"""Daft as the engine: batches in, the steps over them in worker processes, batches out in the same order.

The only module that imports daft. The same plan runs on this machine (`run_segment`) or on a Ray cluster
(`run_on_ray`); where it runs changes nothing in the result.

On this machine Daft keeps order but not memory: a source is read as far ahead as it goes (1.6 GB of a 1.6 GB source
lay in memory in a trial with a slow consumer). So the source here stops while more than `IN_FLIGHT_BYTES` for each
worker are between it and the consumer.

Batches go to worker processes and back through shared memory. A process that is killed (SIGKILL) between writing and
reading leaves up to one segment a worker, some megabytes, in /dev/shm until the machine starts anew. No start removes
them: Daft gives them Python's own names (`psm_` and random letters), which say nothing of their owner.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Lock
from typing import Any

import pyarrow as pa

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.corpus.memory import give_back, return_large
from foundling.corpus.rows import CLEANED, READ
from foundling.corpus.segment import Segment

# Read by daft: no telemetry, and the console is ours.
os.environ["DO_NOT_TRACK"] = "1"
os.environ["DAFT_PROGRESS_BAR"] = "0"
os.environ["DAFT_SHOW_QUERY_ID"] = "0"

import daft
from daft.io.source import DataSource, DataSourceTask

IN_FLIGHT_BYTES = 8 << 20
"""Bytes of rows, for each worker, that may be read and not yet consumed: a batch in work, one waiting, one done, and
some. Copies on the way make several times as much memory of it."""
WAVE_BYTES = 256 << 20
"""Bytes of rows that go to a Ray cluster at a time. Each wave starts its workers anew."""
LARGE_BYTES = 8 << 20
"""Bytes of a batch after which a worker hands its free memory back: the steps need some twenty times as much (a list
of a text's words alone takes ten times), and the allocator would keep it."""
PATIENCE_SECONDS = 60.0
"""How long a batch larger than all that may be under way waits for the one before it. Without end it must not: in some
arrangements Daft hands on a batch only when the next one comes."""
_POLL_SECONDS = 0.002
_READ = daft.Schema.from_pyarrow_schema(READ)
_CLEANED = daft.DataType.from_arrow_type(pa.struct(list(CLEANED)))


def run_segment(
    batches: Callable[[], Iterator[pa.RecordBatch]],
    configs: Sequence[PartConfig],
    is_last: bool,
    workers: int,
    redacting: Sequence[PartConfig] = (),
) -> Generator[pa.RecordBatch, None, None]:
    """Batches of `CLEANED`, in the order of `batches()` (of `READ`), whatever the number of workers.

    is_last: no segment follows. redacting: steps that say what may be shown in samples. workers: processes for the
    steps; 1: none, they run here and without Daft, which would start a process even for one. Close the iterator to stop
    early. What `batches()` raises is raised here.
    """
    if workers == 1:
        segment = Segment(configs, is_last, redacting)
        yield from map(segment.run, batches())
        return
    return_large()
    gate = _Gate(IN_FLIGHT_BYTES * workers)
    steps = daft.cls(use_process=True, max_concurrency=workers)(_Steps)(list(configs), is_last, list(redacting))
    frame = _Source(batches, gate).read()
    frame = frame.select(steps.run(*(daft.col(name) for name in READ.names)).alias("row"))
    results = frame.to_arrow_iter(results_buffer_size=max(2, workers))
    try:
        for result in results:
            gate.release(result.num_rows)
            yield pa.RecordBatch.from_struct_array(result.column("row")).cast(CLEANED)
        if gate.error is not None:
            raise gate.error
    finally:
        gate.shut()
        results.close()


def run_on_ray(
    batches: Callable[[], Iterator[pa.RecordBatch]],
    configs: Sequence[PartConfig],
    is_last: bool,
    workers: int | None,
    redacting: Sequence[PartConfig] = (),
) -> Generator[pa.RecordBatch, None, None]:
    """As `run_segment`, on the Ray cluster that this machine belongs to, or on one that is started here.

    workers: None: one for each core of the cluster. Daft's Ray runner asks a source for all that it has before it
    starts (tried with 0.7.26), so batches go in waves of `WAVE_BYTES`, the next one read while one is worked on.
    Raises UserError where Ray is not installed, or Daft runs on something else in this process already.
    """
    workers = workers or _ray_cores()
    steps = daft.cls(use_process=True, max_concurrency=workers)(_Steps)(list(configs), is_last, list(redacting))
    source = batches()
    with ThreadPoolExecutor(1) as reader:
        wave = reader.submit(_wave, source)
        while tables := wave.result():
            wave = reader.submit(_wave, source)
            frame = daft.from_arrow(tables)
            frame = frame.select(steps.run(*(daft.col(name) for name in READ.names)).alias("row"))
            for result in frame.to_arrow_iter(results_buffer_size=None):
                yield pa.RecordBatch.from_struct_array(result.column("row")).cast(CLEANED)


def _wave(batches: Iterator[pa.RecordBatch]) -> list[pa.Table]:
    """The next batches, each a partition of its own."""
    tables, num_bytes = [], 0
    while num_bytes < WAVE_BYTES and (batch := next(batches, None)) is not None:
        tables.append(pa.Table.from_batches([batch]))
        num_bytes += batch.nbytes
    return tables


def _ray_cores() -> int:
    """Cores of the Ray cluster, once Daft runs on it."""
    if find_spec("ray") is None:
        raise UserError("engine=ray needs Ray", got="none", do="pip install 'foundling[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    if daft.get_or_infer_runner_type() != "ray":
        try:
            daft.set_runner_ray(noop_if_initialized=True)
        except Exception as error:
            raise UserError(f"engine=ray must be the first engine of its process: {error}") from error
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


class _Steps:
    """A segment as Daft calls it: columns in, one struct column out, so that text crosses the border once."""

    def __init__(self, configs: list[PartConfig], is_last: bool, redacting: list[PartConfig]) -> None:
        return_large()
        self._segment = Segment(configs, is_last, redacting)

    @daft.method.batch(return_dtype=_CLEANED)
    def run(self, *columns: Any) -> pa.Array:
        arrays = [column.to_arrow() for column in columns]
        batch = pa.RecordBatch.from_arrays(arrays, schema=READ)
        cleaned = self._segment.run(batch).to_struct_array()
        if batch.nbytes >= LARGE_BYTES:
            give_back()
        return cleaned


class _Gate:
    """Counts what is on its way. Rows leave in the order in which they came, in other portions perhaps."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._portions: deque[list[int]] = deque()  # [rows, bytes]
        self._num_bytes = 0
        self._since = time.monotonic()  # of the last batch that came or left
        self._lock = Lock()
        self.is_shut = False
        self.error: Exception | None = None

    def enter(self, batch: pa.RecordBatch) -> None:
        with self._lock:
            self._portions.append([batch.num_rows, batch.nbytes])
            self._num_bytes += batch.nbytes
            self._since = time.monotonic()

    def release(self, num_rows: int) -> None:
        with self._lock:
            self._since = time.monotonic()
            while num_rows and self._portions:
                portion = self._portions[0]
                taken = min(num_rows, portion[0])
                portion[0] -= taken
                num_rows -= taken
                if not portion[0]:
                    self._num_bytes -= portion[1]
                    self._portions.popleft()

    def shut(self) -> None:
        self.is_shut = True

    @property
    def is_full(self) -> bool:
        if self.is_shut or self._num_bytes < self._max_bytes:
            return False
        return len(self._portions) > 1 or time.monotonic() - self._since < PATIENCE_SECONDS


class _Source(DataSource):
    """Any iterator of batches as one task: the reading is in order, the parallel work is in the steps."""

    def __init__(self, batches: Callable[[], Iterator[pa.RecordBatch]], gate: _Gate) -> None:
        self._batches, self._gate = batches, gate

    @property
    def name(self) -> str:
        return "foundling"

    @property
    def schema(self) -> Any:
        return _READ

    async def get_tasks(self, pushdowns: Any) -> AsyncIterator[Any]:
        yield _Task(self._batches, self._gate)


class _Task(DataSourceTask):
    def __init__(self, batches: Callable[[], Iterator[pa.RecordBatch]], gate: _Gate) -> None:
        self._batches, self._gate = batches, gate

    @property
    def schema(self) -> Any:
        return _READ

    async def read(self) -> AsyncIterator[Any]:
        batches = self._batches()
        while True:
            while self._gate.is_full:
                await asyncio.sleep(_POLL_SECONDS)
            if self._gate.is_shut or (batch := self._next(batches)) is None:
                return
            self._gate.enter(batch)
            yield daft.recordbatch.RecordBatch.from_arrow_record_batches([batch], READ)

    def _next(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        try:
            return next(batches, None)
        except Exception as error:  # raised again by `run_segment`: Daft would make another error of it
            self._gate.error = error
            return None
