"""The baselines are what the command-line tools make of the same bytes."""

import random
import shutil
import subprocess

import pytest

from foundling.core.errors import UserError
from foundling.evaluation.compression import compressed_bits_per_byte

WORDS = ["the", "sea", "was", "blue", "and", "old", "man", "sang", "of", "fish"]
DATA = " ".join(random.Random(0).choices(WORDS, k=4000)).encode()


def test_noise_does_not_shrink_and_repetition_does() -> None:
    noise = random.Random(1).randbytes(50_000)
    assert all(8.0 < value < 8.1 for value in compressed_bits_per_byte([noise]).values())
    assert all(value < 0.1 for value in compressed_bits_per_byte([b"a" * 50_000]).values())


def test_pieces_are_one_text() -> None:
    pieces = [DATA[i : i + 1000] for i in range(0, len(DATA), 1000)]
    assert compressed_bits_per_byte(pieces) == compressed_bits_per_byte([DATA])


@pytest.mark.parametrize("command", ["gzip -9", "xz -9e"])
def test_they_are_the_command_line_tools(command: str) -> None:
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"this machine has no {command.split()[0]}")
    size = len(subprocess.run([*command.split(), "-c"], input=DATA, capture_output=True, check=True).stdout)
    assert compressed_bits_per_byte([DATA])[command] == pytest.approx(8 * size / len(DATA), rel=0.005)


def test_no_bytes_are_told() -> None:
    with pytest.raises(UserError, match="bytes to compress"):
        compressed_bits_per_byte([])
