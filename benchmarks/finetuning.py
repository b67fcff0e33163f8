"""Fine-tuning beside a peer, taking turns: quality on test and the seconds that it took.

    python -m benchmarks.finetuning TASKS --base FOLDER [--task sst2] [--rounds 1] [--peer NAME="COMMAND" ...]

TASKS holds a folder for each task (`sst2/train.jsonl`, `dev.jsonl`, `test.jsonl`). A peer is a command that prints one
line of JSON with `test_accuracy` and `train_s` (evaluation on dev after each epoch included); `{train}`, `{dev}` and
`{test}` in it are filled in. All sides train 3 epochs of 32 examples at 5e-5, linear with 10 % warm-up, weight decay
0.01, at most 128 tokens, and keep the epoch that was best on dev. Each run is a fresh process.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._compare import child, interval


def run_ours(folder: Path, base: str, seed: int) -> dict[str, Any]:
    """Our run in this process."""
    from foundling.train.finetune import finetune
    from foundling.train.finetune_recipe import FinetuneRecipe

    with tempfile.TemporaryDirectory() as out:
        recipe = FinetuneRecipe.model_validate(
            {
                "name": "bench",
                "out": out + "/run",
                "base": base,
                "seed": seed,
                "task": {
                    "kind": "classification",
                    **{split: str(folder / f"{split}.jsonl") for split in ("train", "dev", "test")},
                    "max_length": 128,
                },
                "optimizer": {"kind": "adamw", "lr": 5e-5, "weight_decay": 0.01, "betas": [0.9, 0.999]},
            }
        )
        summary = finetune(recipe).summary
    return {
        "system": "foundling",
        "task": folder.name,
        "test_accuracy": summary["test"]["accuracy"],
        "interval": summary["test"]["intervals"]["accuracy"],
        "train_s": summary["wall_seconds"],
        "tokens_per_s": round(summary["tokens"] / summary["wall_seconds"]),
        "precision": summary["settings"]["precision"],
        "compiled": summary["settings"]["compiled"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--base", required=True)
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer", action="append", default=[], metavar='NAME="COMMAND"')
    parser.add_argument("--only", type=int, metavar="SEED", help="run ours once in this process and print its line")
    given = parser.parse_args()
    if given.only is not None:
        print(json.dumps(run_ours(given.tasks / given.task[0], given.base, given.only)))
        return
    print("| task | system | test accuracy | seconds | it / ours | 95 % |\n|---|---|---|---|---|---|", file=sys.stderr)
    for task in given.task or ["sst2", "trec-qc"]:
        files = {split: str(given.tasks / task / f"{split}.jsonl") for split in ("train", "dev", "test")}
        mine = [sys.executable, "-m", "benchmarks.finetuning", str(given.tasks), "--base", given.base, "--task", task]
        peers = {name: shlex.split(text.format(**files)) for name, text in (p.split("=", 1) for p in given.peer)}
        runs: dict[str, list[dict[str, Any]]] = {"foundling": [], **{name: [] for name in peers}}
        for number in range(given.rounds):
            for name, command in (("foundling", [*mine, "--only", str(number)]), *peers.items()):
                runs[name].append(child(command))
                print(json.dumps({"name": name, **runs[name][-1]}), flush=True)
        for name, found in runs.items():
            ratios = [its["train_s"] / ours["train_s"] for its, ours in zip(found, runs["foundling"], strict=True)]
            low, high = interval(ratios)
            accuracy = statistics.mean(run["test_accuracy"] for run in found)
            seconds = statistics.median(run["train_s"] for run in found)
            print(
                f"| {task} | {name} | {accuracy:.4f} | {seconds:.0f} | {statistics.median(ratios):.2f} "
                f"| {low:.2f} - {high:.2f} |",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
