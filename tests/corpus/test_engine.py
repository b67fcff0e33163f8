"""Order, bounds and silence of the engine."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pyarrow as pa
import pytest

from foundling.core.config import PartConfig
from foundling.core.errors import UserError
from foundling.corpus import engine
from foundling.corpus.rows import READ
from foundling.corpus.segment import Segment
from foundling.corpus.steps import length, unicode
from tests.corpus.made_steps import BrokenConfig

STEPS: list[PartConfig] = [unicode.Config(kind="unicode"), length.Config(kind="length", min_characters=3)]


def batches(num_batches: int, num_bytes: int, produced: list[int]) -> Iterator[pa.RecordBatch]:
    for number in range(num_batches):
        rows = [
            {"id": f"{number}:{i}", "text": f"{number}\r\n{i} " * (num_bytes // 8), "source": "s", "domain": "d"}
            for i in range(3)
        ]
        produced.append(number)
        yield pa.RecordBatch.from_pylist([{"meta": "{}", **row} for row in rows], schema=READ)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_engine_gives_what_the_segment_gives_in_order(workers: int) -> None:
    wanted = [row for batch in batches(40, 100, []) for row in Segment(STEPS, True).run(batch).to_pylist()]
    got = engine.run_segment(lambda: batches(40, 100, []), STEPS, True, workers)
    assert [row for batch in got for row in batch.to_pylist()] == wanted


def test_the_source_waits_for_a_slow_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 batches of 1 MB with a bound of 4 MB: without the gate, all of them are read at once."""
    monkeypatch.setattr(engine, "IN_FLIGHT_BYTES", 2 << 20)
    produced: list[int] = []
    got = engine.run_segment(lambda: batches(100, 1 << 18, produced), STEPS, True, 2)
    next(got)
    limit = time.monotonic() + 20
    while len(produced) < 2 and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(0.3)
    assert 2 <= len(produced) <= 12
    got.close()
    time.sleep(0.1)
    assert len(produced) <= 13, "closed means closed"


def test_batches_larger_than_the_bound_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "IN_FLIGHT_BYTES", 1)
    monkeypatch.setattr(engine, "PATIENCE_SECONDS", 1.0)
    got = engine.run_segment(lambda: batches(12, 1000, []), STEPS, True, 2)
    assert sum(batch.num_rows for batch in got) == 36


def test_no_telemetry_and_no_engine_on_import() -> None:
    code = (
        "import sys, foundling, foundling.cli.corpus; assert not {'daft', 'pyarrow', 'torch'} & set(sys.modules);"
        "import foundling.corpus.build, os; assert os.environ['DO_NOT_TRACK'] == '1'; assert 'torch' not in sys.modules"
    )
    environment = {key: value for key, value in os.environ.items() if key != "DO_NOT_TRACK"}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_source_raises_is_raised_here(workers: int) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from batches(3, 100, [])
        raise UserError("the source must go on", got="an end")

    with pytest.raises(UserError, match="the source must go on; got an end"):
        list(engine.run_segment(broken, STEPS, True, workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_step_raises_is_raised_here(workers: int) -> None:
    with pytest.raises(Exception, match="no such luck"):
        list(engine.run_segment(lambda: batches(3, 100, []), [BrokenConfig()], True, workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_empty_source_gives_nothing(workers: int) -> None:
    assert list(engine.run_segment(lambda: iter(()), STEPS, True, workers)) == []
