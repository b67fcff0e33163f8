"""Tiny Shakespeare by characters: seconds to a loss, beside nanoGPT's recipe for a CPU (track T3: any method).

    python -m benchmarks.tiny_shakespeare TEXT [--nanogpt DIR] [--rounds 3] [--recipe FILE]

TEXT is the file of 1,115,394 characters; as nanoGPT does, its first 90 % train and the rest validates. DIR is a
checkout of https://github.com/karpathy/nanoGPT; without it only ours runs. Its recipe is the one of its README for a
CPU, which ends at about 1.88; ours (benchmarks/recipes/tiny-shakespeare-fast.yaml) is our shortest run to that, or
the recipe that is given (tiny-shakespeare-best.yaml: the lowest loss in a quarter of an hour).

Each run is a fresh process, timed from its start to its end: imports, reading, tokenizing, training, scoring, writing.
Rounds take turns. Losses are nats a character. Ours is over all of the validation text, in rows of the length that was
trained on, without context from the row before; nanoGPT's is its own last estimate, from 20 batches of such rows.

One JSON line a run, then the medians and the ratio's 95 % interval over rounds.
"""

import argparse
import json
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks._compare import interval, machine

FAST = Path(__file__).parent / "recipes" / "tiny-shakespeare-fast.yaml"
NANOGPT = {
    "device": "cpu", "compile": False, "eval_iters": 20, "log_interval": 100, "block_size": 64, "batch_size": 12,
    "n_layer": 4, "n_head": 4, "n_embd": 128, "max_iters": 2000, "lr_decay_iters": 2000, "dropout": 0.0,
}  # fmt: skip


def halves(text: Path) -> tuple[str, str]:
    """What trains and what validates."""
    whole = text.read_text(encoding="utf-8")
    cut = int(0.9 * len(whole))
    return whole[:cut], whole[cut:]


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds and standard output of a command run in a folder."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def run_ours(text: Path, recipe: Path) -> dict[str, Any]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part, characters in zip(("train", "valid"), halves(text), strict=True):
            (folder / part).mkdir()
            (folder / part / "shakespeare.txt").write_text(characters, encoding="utf-8")
        seconds, _ = timed([sys.executable, "-m", "foundling", "pretrain", str(recipe.resolve()), "out=run"], folder)
        summary = json.loads((folder / "run" / "summary.json").read_text())
    return {
        "system": "foundling",
        "loss": round(summary["valid"]["loss"], 4),
        "seconds": round(seconds, 2),
        "training_seconds": summary["seconds"],
        "tokens": summary["tokens"],
        "weights": summary["weights"],
        "settings": summary["settings"],
    }


def run_nanogpt(text: Path, checkout: Path) -> dict[str, Any]:
    with TemporaryDirectory() as name:
        folder = Path(name) / "nanoGPT"
        shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git", "out*"))
        characters = sorted(set(text.read_text(encoding="utf-8")))
        ids = {character: i for i, character in enumerate(characters)}
        for part, half in zip(("train", "val"), halves(text), strict=True):
            np.array([ids[c] for c in half], dtype=np.uint16).tofile(folder / f"data/shakespeare_char/{part}.bin")
        (folder / "data/shakespeare_char/meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(ids)}))
        options = [f"--{key}={value}" for key, value in NANOGPT.items()]
        command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *options]
        seconds, out = timed(command, folder)
    scores = re.findall(r"step (\d+): train loss [\d.]+, val loss ([\d.]+)", out)
    return {
        "system": "nanoGPT's CPU recipe",
        "loss": float(scores[-1][1]),
        "seconds": round(seconds, 2),
        "settings": NANOGPT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", type=Path, default=FAST, metavar="FILE")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(arguments.rounds):
        runs = [run_ours(arguments.text, arguments.recipe)]
        if arguments.nanogpt is not None:
            runs.append(run_nanogpt(arguments.text, arguments.nanogpt))
        for run in runs:
            print(json.dumps({**run, "machine": machine()}), flush=True)
            found.setdefault(run["system"], []).append(run)
    print("\n| system | validation loss | seconds (median) |\n|---|---|---|")
    for system, runs in found.items():
        loss, seconds = (statistics.median(run[key] for run in runs) for key in ("loss", "seconds"))
        print(f"| {system} | {loss:.4f} | {seconds:.1f} |")
    if len(found) == 2:
        ours, theirs = found.values()
        ratios = [its["seconds"] / mine["seconds"] for mine, its in zip(ours, theirs, strict=True)]
        low, high = interval(ratios)
        print(f"\nits seconds / ours: {statistics.median(ratios):.1f} (95 %: {low:.1f} - {high:.1f})")


if __name__ == "__main__":
    main()
