"""What BENCHMARKS.md shows is there, and says what its tables say."""

import re
from pathlib import Path

import pytest
import torch

from benchmarks.plots import comparisons, drawn
from benchmarks.throughput import device_of

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


def test_a_gpu_that_is_not_there_is_told() -> None:
    assert device_of("cpu").type == "cpu"
    if torch.cuda.is_available():
        assert device_of("auto").type == device_of("cuda").type == "cuda"
        return
    assert device_of("auto").type == "cpu"
    with pytest.raises(SystemExit, match="needs a CUDA device; there is none here"):
        device_of("cuda")


def test_every_command_is_of_a_benchmark_that_is_there() -> None:
    named = set(re.findall(r"python -m (benchmarks[.\w]*)", TEXT))
    assert named
    for name in named:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or path.is_dir(), name
