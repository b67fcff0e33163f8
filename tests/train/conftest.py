"""Fine-tunings of tests draw few samples for their intervals; `tests/evaluation` tries the full number."""

from functools import partial

import pytest

from foundling.evaluation import judge


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "intervals", partial(judge.intervals, draws=100))
