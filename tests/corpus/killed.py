"""A build that kills itself with SIGKILL at a given event: `python -m tests.corpus.killed SOURCE OUT WORKERS MOMENT`.

An event is a call that leaves a trace on disk. Chunks and batches are tiny, so that there are many. Prints how many
events there were, and how many documents went through the steps, where it lives to the end.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from foundling.corpus import rows, shards, work
from foundling.corpus.build import Config, build_corpus
from tests.corpus import made_steps

num_events = num_masked = 0


def counted(original: Callable[..., Any], moment: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        global num_events
        num_events += 1
        if num_events == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    return call


def main(source: str, out: str, workers: str, moment: str) -> None:
    global num_masked
    for owner, name in (
        (os, "fsync"),
        (os, "rename"),
        (os, "replace"),
        (shutil, "rmtree"),
        (shutil, "copyfile"),
        (pq.ParquetWriter, "write_table"),
    ):
        setattr(owner, name, counted(getattr(owner, name), int(moment)))
    apply = made_steps.Mask.apply

    def seen(self: Any, document: Any) -> Any:
        global num_masked
        num_masked += 1
        return apply(self, document)

    made_steps.Mask.apply = seen  # type: ignore[method-assign]
    work.CHUNK_BYTES, rows.BATCH_ROWS, shards._ROW_GROUP_BYTES = 1, 40, 4000  # type: ignore[misc]
    steps = [config() for config in made_steps.ALL]
    build_corpus([source], Path(out), Config(steps=steps, workers=int(workers), valid_fraction=0.2))
    print(num_events, num_masked)


if __name__ == "__main__":
    main(*sys.argv[1:])
