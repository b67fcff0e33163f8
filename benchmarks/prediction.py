"""Answers a second: `foundling.load(FOLDER).predict([...])` beside transformers' pipelines with the same model.

    python -m benchmarks.prediction TASKS --model sst2=FOLDER [--model wnut17=FOLDER ...] [--rounds 3] [--examples N]

TASKS holds `sst2/test.jsonl` and so on. FOLDER is a fine-tuned run, or its model folder, of a task of texts or of words
with a linear head, whose body transformers has a class for; `foundling finetune benchmarks/recipes/sst2.yaml` makes
one. The pipeline (benchmarks/peers/hf_pipeline.py) answers one example at a time, 32 at a time, and 32 at a time in the
order of their lengths. Ours is given the examples as they come. Each run is a fresh process; rounds take turns; loading
and reading are outside the time.

Before any figure, a parity gate over all examples. Texts: the probabilities are the pipeline's, at the temperature that
the folder's task.json says, to 1e-3, and the label is the same unless two are that close. Words: where the pipeline's
tags (of each word's first token) are entities that the scheme allows, ours are the same ones; where they are not, ours
is the best sequence that is allowed, and the pipeline has no such answer to compare. It is printed how many those are,
how many texts are too long for one row, and how many entities were compared. Ours runs once more in bf16, outside the
gate: how many of its answers are others is printed.

One JSON line a run, then a table: medians, and the ratio's 95 % interval over rounds. The pipeline's best way counts.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks._compare import child, interval, machine
from benchmarks.peers.hf_pipeline import WARM_UP

MOST_APART = 1e-3
IN_BF16 = "foundling, bf16"
WAYS = {
    "pipeline, 1 at a time": ["--batch-size", "1"],
    "pipeline, 32 at a time": ["--batch-size", "32"],
    "pipeline, 32 of like length": ["--batch-size", "32", "--by-length"],
}


def rows_of(file: Path, number: int | None) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines][:number]


def asked_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is true."""
    return {key: row[key] for key in ("text", "tokens") if key in row}


def run_ours(folder: Path, file: Path, number: int | None, answers: Path, bf16: bool) -> dict[str, Any]:
    """Our run in this process."""
    import torch

    import foundling

    asked = [asked_of(row) for row in rows_of(file, number)]
    model = foundling.load(folder, device="cpu", dtype=torch.bfloat16 if bf16 else torch.float32)
    model.predict(asked[:WARM_UP])
    start = time.perf_counter()
    found = model.predict(asked)
    seconds = time.perf_counter() - start
    answers.write_text("".join(json.dumps(answer) + "\n" for answer in found), encoding="utf-8")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"examples_per_s": round(len(asked) / seconds, 2), "peak_gib": round(peak, 3)}


def parity_of_texts(ours: list[dict[str, Any]], theirs: list[dict[str, float]], temperature: float) -> dict[str, Any]:
    worst = 0.0
    for mine, plain in zip(ours, theirs, strict=True):
        powers = {label: p ** (1 / temperature) for label, p in plain.items()}
        its = {label: p / sum(powers.values()) for label, p in powers.items()}
        assert its.keys() == mine["probabilities"].keys(), (its, mine)
        worst = max(worst, *(abs(its[label] - p) for label, p in mine["probabilities"].items()))
        assert its[mine["label"]] > max(its.values()) - MOST_APART, (its, mine)
    assert worst < MOST_APART, worst
    return {"probabilities": worst, "temperature": temperature}


def parity_of_words(
    ours: list[dict[str, Any]], theirs: list[list[str]], windows: list[int], scheme: str
) -> dict[str, Any]:
    from foundling.evaluation.metrics.entity_f1 import entities, strict_entities

    broken = long = compared = 0
    for mine, tags, rows in zip(ours, theirs, windows, strict=True):
        its = list(entities(tags))
        if rows != 1:
            long += 1
        elif its != list(strict_entities(tags, scheme)):
            broken += 1
        else:
            assert [(e["start"], e["end"], e["label"]) for e in mine["entities"]] == its, (mine, tags)
            compared += len(its)
    same = len(ours) - broken - long
    assert same > len(ours) / 2, "too few examples can be compared"
    assert compared, "the model finds no entity, so nothing is compared"
    return {"same entities": same, "tags of no scheme": broken, "more than a row": long, "entities": compared}


def parity(folder: Path, asked: list[dict[str, Any]], ours: Path, theirs: Path) -> dict[str, Any]:
    """What the gate finds; AssertionError where the answers are not the same."""
    from foundling.tasks.folder import load_task

    task, _ = load_task(folder)
    mine, its = ([json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in (ours, theirs))
    assert len(mine) == len(its) == len(asked)
    if "tokens" not in asked[0]:
        return parity_of_texts(mine, its, task.facts.get("temperature", 1.0))
    rows = [row.example for row in task.rows([task.config.example(one, known=False) for one in asked])]  # type: ignore[attr-defined]
    return parity_of_words(mine, its, [rows.count(number) for number in range(len(asked))], task.config.scheme)  # type: ignore[attr-defined]


def differing(one: Path, other: Path) -> int:
    """How many examples have another label, or other entities."""
    both = [[json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in (one, other)]
    told = lambda answer: answer.get("tags", answer.get("label"))
    return sum(told(a) != told(b) for a, b in zip(*both, strict=True))


def compare(name: str, folder: Path, file: Path, number: int | None, rounds: int) -> list[str]:
    """Measures one model, prints its lines and returns the rows of its table."""
    limit = [] if number is None else ["--examples", str(number)]
    longest = json.loads((folder / "task.json").read_text("utf-8"))["task"]["max_length"] or 512
    runs: dict[str, list[dict[str, Any]]] = {"foundling": [], IN_BF16: [], **{way: [] for way in WAYS}}
    with TemporaryDirectory() as work:
        paths = {who: Path(work) / f"{place}.jsonl" for place, who in enumerate(runs)}
        mine = [sys.executable, "-m", "benchmarks.prediction", str(file), "--only", str(folder)]
        peer = [sys.executable, "-m", "benchmarks.peers.hf_pipeline", str(folder), str(file)]
        commands = {
            "foundling": mine,
            IN_BF16: [*mine, "--bf16"],
            **{way: [*peer, "--max-length", str(longest), *WAYS[way]] for way in WAYS},
        }
        asked = [asked_of(row) for row in rows_of(file, number)]
        for turn in range(rounds):
            found = {who: child([*command, *limit, "--answers", str(paths[who])]) for who, command in commands.items()}
            if turn == 0:
                other = differing(paths["foundling"], paths[IN_BF16])
                print(json.dumps({"model": name, "bf16 answers otherwise": other, "of": len(asked)}), flush=True)
                for way in WAYS:
                    gate = parity(folder, asked, paths["foundling"], paths[way])
                    print(json.dumps({"model": name, "parity": gate, "with": way}), flush=True)
            for who, run in found.items():
                runs[who].append(run)
                line = {"model": name, "system": who, "round": turn, **run, "command": commands[who]}
                print(json.dumps({**line, "machine": machine()}), flush=True)
    rates = {who: [run["examples_per_s"] for run in each] for who, each in runs.items()}
    best = max(WAYS, key=lambda way: statistics.median(rates[way]))
    table = []
    for who, each in rates.items():
        peak = statistics.median(run["peak_gib"] for run in runs[who])
        row = f"| {name} | {who}{' (its best)' if who == best else ''} | {statistics.median(each):,.0f} | {peak:.2f} "
        if who not in WAYS:
            table.append(row + "| | |")
            continue
        ratios = [ours / its for ours, its in zip(rates["foundling"], each, strict=True)]
        low, high = interval(ratios)
        table.append(row + f"| {statistics.median(ratios):.2f} | {low:.2f} - {high:.2f} |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--model", action="append", default=[], metavar="TASK=FOLDER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, metavar="N", help="answer the first N only, to try things out")
    parser.add_argument("--only", type=Path, metavar="FOLDER", help="run ours once in this process; TASKS is a file")
    parser.add_argument("--bf16", action="store_true", help="with --only: weights in bf16")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="with --only: where the answers go")
    given = parser.parse_args()
    if given.only is not None:
        print(json.dumps(run_ours(given.only, given.tasks, given.examples, given.answers, given.bf16)))
        return
    if not given.model:
        parser.error("give --model TASK=FOLDER")
    from foundling.models.hub import find_model_dir

    table = []
    for name, _, folder in (model.partition("=") for model in given.model):
        file = given.tasks / name / "test.jsonl"
        table += compare(name, find_model_dir(folder), file, given.examples, given.rounds)
    print("\n| model | system | examples/s (median) | peak GiB | ours / it | 95 % |\n|---|---|---|---|---|---|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
