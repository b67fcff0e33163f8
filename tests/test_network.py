"""The whole road opens no connection: every attempt from Python ends the process, and Daft's telemetry is off."""

import os
import subprocess
import sys
from pathlib import Path

from tests.tiny import write_texts

_SCRIPT = """
import os, socket, sys

def refuse(*arguments, **named):
    os.write(2, b"a connection was tried\\n")
    os._exit(70)

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.create_connection = socket.getaddrinfo = refuse
if sys.argv[1:] == ["planted"]:
    socket.getaddrinfo("example.org", 80)

from foundling.cli.main import main

small = ["train.length=2 steps", "train.batch=4 examples", "train.sequence_length=32", "train.compile=false"]
small += ["model.depth=1", "tokenizer.vocab_size=400", "track=[tensorboard]"]
recipe = sys.argv[1]
for command in (
    ["corpus", "build", "texts", "--out", "corpus", "valid_fraction=0.1"],
    ["pretrain", recipe, "corpus.train=corpus", "out=run", *small],
    ["generate", "run", "--prompt", "the old", "--max-tokens", "3"],
    ["evaluate", "run", "--suite", "perplexity", "--data", "corpus"],
):
    assert main(command) == 0, command
assert os.environ["DO_NOT_TRACK"] == "1"
"""


def road(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _SCRIPT, *arguments]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # two spinning threads beside other tests take minutes
    return subprocess.run(command, cwd=folder, env=one_thread, capture_output=True, text=True, check=False, timeout=240)


def test_the_whole_road_tries_no_connection(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", 200)
    recipe = Path(__file__).parent.parent / "recipes" / "gpt-mini.yaml"
    done = road(tmp_path, str(recipe))
    assert done.returncode == 0, done.stderr


def test_a_planted_connection_is_caught(tmp_path: Path) -> None:
    assert road(tmp_path, "planted").returncode == 70
