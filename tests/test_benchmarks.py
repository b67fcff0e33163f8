"""What BENCHMARKS.md shows is there, and says what its tables say."""

import re
from pathlib import Path

from benchmarks.plots import comparisons, drawn

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")


def test_pictures_are_there_and_of_these_tables() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)
    rows = comparisons(TEXT)
    assert {row.family for row in rows} == {"gpt", "bert", "xlnet"}
    assert all(row.low <= row.ratio <= row.high for row in rows)
    shown = (ROOT / "docs/pictures/throughput.svg").read_text(encoding="utf-8")
    assert shown == drawn(rows), "python -m benchmarks.plots draws it anew"


def test_every_command_is_of_a_benchmark_that_is_there() -> None:
    named = set(re.findall(r"python -m (benchmarks[.\w]*)", TEXT))
    assert named
    for name in named:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or path.is_dir(), name
