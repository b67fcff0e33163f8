"""Parallel tokenizing with bounded memory, in order, by any number of processes with the same result.

Each process is a fresh Python that a thread here talks to over pipes (`_worker.py`). Nothing is forked, so threads of
torch in this process cannot be caught half-way, and the caller's main module is not imported again, so a script needs
no `if __name__ == "__main__"`. A process that dies closes its pipe, which is an error at once.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, NoReturn, TypeVar

import numpy as np

import foundling
from foundling.core.errors import UserError
from foundling.data._worker import read_message, write_message
from foundling.tokenizers.base import Tokenizer

_BATCH_BYTES = 1 << 20
"""Text in one message: large enough that pipes cost nothing, small enough that 2 a process fit any memory."""

_BATCH_TEXTS = 2048

_SMALL_BYTES = 2 << 20
"""Below this much text a process (0.2 s to start) costs more than it saves."""

Tag = TypeVar("Tag")


@dataclass(frozen=True)
class Tokenized(Generic[Tag]):
    """A batch of documents. tags: what the caller gave with each. ids: all ids, one document after the other, of the
    tokenizer's dtype. lengths_tokens, lengths_bytes: `[num_documents]` int64, of ids and of UTF-8."""

    tags: list[Tag]
    ids: np.ndarray
    lengths_tokens: np.ndarray
    lengths_bytes: np.ndarray


@dataclass(frozen=True)
class _Batch(Generic[Tag]):
    tags: list[Tag]
    texts: list[bytes]

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(text) for text in self.texts], dtype=np.int64)


def default_workers() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def tokenize(
    documents: Iterable[tuple[Tag, str]], tokenizer: Tokenizer, *, workers: int | None = None
) -> Iterator[Tokenized[Tag]]:
    """Ids of tagged texts, in their order. workers: processes; None: one a processor, 0 or 1: none but this."""
    if workers is not None and workers < 0:
        raise UserError("workers must be 0 or more", got=workers)
    workers = default_workers() if workers is None else workers
    batches = _batches(documents)
    head: list[_Batch[Tag]] = []
    if workers > 1:
        num_bytes = 0
        for batch in batches:
            head.append(batch)
            num_bytes += int(batch.lengths.sum())
            if num_bytes > _SMALL_BYTES:
                break
        else:
            workers = 1
    if workers <= 1:
        return (_here(batch, tokenizer) for batch in _chain(head, batches))
    return _parallel(_chain(head, batches), tokenizer, workers)


def _chain(head: list[_Batch[Tag]], rest: Iterator[_Batch[Tag]]) -> Iterator[_Batch[Tag]]:
    yield from head
    yield from rest


def _batches(documents: Iterable[tuple[Tag, str]]) -> Iterator[_Batch[Tag]]:
    tags: list[Tag] = []
    texts: list[bytes] = []
    num_bytes = 0
    for tag, text in documents:
        try:
            encoded = text.encode()
        except UnicodeEncodeError as error:
            raise UserError("text must be of whole characters", got="half of a surrogate pair") from error
        tags.append(tag)
        texts.append(encoded)
        num_bytes += len(encoded)
        if num_bytes >= _BATCH_BYTES or len(texts) >= _BATCH_TEXTS:
            yield _Batch(tags, texts)
            tags, texts, num_bytes = [], [], 0
    if texts:
        yield _Batch(tags, texts)


def _here(batch: _Batch[Tag], tokenizer: Tokenizer) -> Tokenized[Tag]:
    ids = tokenizer.encode_batch([text.decode() for text in batch.texts])
    lengths = np.array([len(i) for i in ids], dtype=np.int64)
    return Tokenized(batch.tags, np.concatenate(ids), lengths, batch.lengths)


def _parallel(batches: Iterator[_Batch[Tag]], tokenizer: Tokenizer, workers: int) -> Iterator[Tokenized[Tag]]:
    """Keeps at most two batches a worker in flight and yields their results in order."""
    with ExitStack() as stack:
        crew = [_Worker(tokenizer, stack) for _ in range(workers)]
        pool = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="tokenize"))
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in crew:
            idle.put(worker)
            # Left before the pool: a process that has ended lets the thread that waits for it go.
            stack.callback(worker.end)
        flying: deque[Future[Tokenized[Tag]]] = deque()
        stack.callback(_cancel, flying)

        def run(batch: _Batch[Tag]) -> Tokenized[Tag]:
            worker = idle.get()
            try:
                return worker.tokenize(batch)
            finally:
                idle.put(worker)

        for batch in batches:
            flying.append(pool.submit(run, batch))
            if len(flying) >= 2 * workers:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()


def _cancel(futures: deque[Future[Tokenized[Tag]]]) -> None:
    for future in futures:
        future.cancel()


class _Worker:
    """One tokenizing process. Its pipes are closed when `stack` is left."""

    def __init__(self, tokenizer: Tokenizer, stack: ExitStack) -> None:
        self._dtype = tokenizer.dtype
        paths = [str(Path(foundling.__file__).parent.parent), *(path for path in sys.path if path)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "TOKENIZERS_PARALLELISM": "false",  # the processes are the parallelism
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "foundling.data._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        stack.callback(self._close)
        self._send(np.zeros(1, dtype=np.int64), [tokenizer.json.encode()])

    def tokenize(self, batch: _Batch[Tag]) -> Tokenized[Tag]:
        self._send(batch.lengths, batch.texts)
        assert self._process.stdout is not None
        answer = read_message(self._process.stdout)  # type: ignore[arg-type]
        if answer is None:
            self._died()
        lengths, body = answer
        return Tokenized(batch.tags, np.frombuffer(body, dtype=self._dtype), lengths, batch.lengths)

    def _send(self, lengths: np.ndarray, bodies: list[bytes]) -> None:
        assert self._process.stdin is not None
        try:
            write_message(self._process.stdin, lengths, bodies)  # type: ignore[arg-type]
        except BrokenPipeError:
            self._died()

    def _died(self) -> NoReturn:
        status = self._process.wait()
        raise UserError(
            "every tokenizing process must live until its work is done",
            got=f"one that ended with status {status}",
            do="status -9 is most often a lack of memory: use fewer workers",
        )

    def end(self) -> None:
        """Ends the process: it has no more work, or its work is of no more use."""
        self._process.kill()
        self._process.wait()

    def _close(self) -> None:
        self.end()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        with suppress(BrokenPipeError):  # what it was still to be told, it need not know
            self._process.stdin.close()
