"""Seconds to a loss: the gpt workload until it predicts held-back text as well as a peer does at its end.

    python -m benchmarks.time_to_loss DATA --peer "COMMAND" [--steps 300] [--track T2 ...] [--share 0.4] [--rounds 1]

DATA is that of benchmarks/throughput.py, with `valid.jsonl` beside (a `text` a line). The peer trains so many steps on
rows of 256 tokens, 32 a step, and prints lines of JSON with `step`, `train_s` (scoring left out, compilation included)
and `bits_per_byte`; `{steps}` and `{data}` in its command are filled in.

    --peer "python -m benchmarks.peers.hf_time_to_loss {steps} {data}"

T2: the same model (GPT-2's mathematics, its published initial values) and text; another optimizer, its batch and
schedule. That it is the same model is tried before, by the parity gate of benchmarks/throughput.py. T3: another
architecture of at most as many weights and FLOPs a token: a smaller one, of the dial's depth 3, trained as a recipe
trains it that says nothing else. METHODS holds what ours are. Ours is planned to end after `--share` of the peer's
tokens (SHARES: what each track is planned for). It is scored as often in its last half as the peer in all, and the time
counts to the first score at which it is as good as the peer's last; without one there is no figure.

Scores are bits per byte over all of `valid.jsonl`, documents one after the other in rows of 256 without context, which
is how the peer's script scores too. Each run is a fresh process; rounds take turns. One JSON line a score, then a
table.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks._compare import child, interval, machine
from benchmarks.workloads import WORKLOADS, settings_of, tokenizer_of, training_of
from foundling.evaluation.perplexity import perplexity
from foundling.models.base import Model
from foundling.train import dial
from foundling.train.loop import training_step

WORK = WORKLOADS["gpt"]
ROW_TOKENS = WORK.row_length
PEER_BATCH = WORK.rows * ROW_TOKENS
SCORES = 6

METHODS: dict[str, dict[str, Any]] = {
    "T2": {
        "optimizer": {
            "kind": "muon",
            "lr": 2e-3,
            "adamw": {"lr": 2e-3},
            "groups": [{"match": "embedding.weight", "lr": 2e-3}],
        },
        "schedule": {"kind": "wsd", "warmup": 0.05, "decay": 0.6},
    },
    "T3": {"optimizer": {"kind": "adamw", "lr": dial.default_lr(192)}, "schedule": {"kind": "wsd"}},
}
SIZES: dict[str, dict[str, Any]] = {
    "T2": WORK.size,
    "T3": {**dial.shape_of_depth(3), "max_positions": 256},
}
ROWS = {"T2": 16, "T3": 8}
SHARES = {"T2": 0.35, "T3": 0.4}


def run_ours(data_dir: Path, track: str, steps: int, share: float, precision: str, compiled: bool) -> None:
    """Our run in this process; prints its scores."""
    planned = round(steps * share * WORK.rows / ROWS[track])
    training = training_of(
        data_dir, "gpt", precision, compiled, 8, method=METHODS[track], lr=METHODS[track]["optimizer"]["lr"],
        steps=planned, size=SIZES[track], rows=ROWS[track],
    )  # fmt: skip
    tokenizer = tokenizer_of(data_dir, "gpt")
    texts = texts_of(data_dir)
    every = max(1, planned // (2 * SCORES))
    seconds, start = list[float](), time.perf_counter()
    for step in range(1, planned + 1):
        training_step(training)
        seconds.append(time.perf_counter() - start)
        start += seconds[-1]
        if (planned - step) % every or step < planned // 2:
            continue
        with training.trainee.scoring():
            score = perplexity(cast(Model, training.trainee.model), tokenizer, texts, row_length=ROW_TOKENS).total
        found = {
            "system": f"foundling, {track}",
            "step": step,
            "tokens": training.num_tokens,
            "train_s": round(sum(seconds), 1),
            "bits_per_byte": round(score.bits_per_byte, 4),
            "steps_s": [round(one, 4) for one in seconds],
            "settings": settings_of(training),
            "machine": machine(),
        }
        print(json.dumps(found), flush=True)
        start = time.perf_counter()


def texts_of(data_dir: Path) -> list[tuple[str, str]]:
    """What both sides are scored on."""
    with (data_dir / "valid.jsonl").open(encoding="utf-8") as lines:
        return [("valid", json.loads(line)["text"]) for line in lines]


def gate(data_dir: Path, precision: str, compiled: bool) -> dict[str, Any]:
    """The gpt workload's parity gate, in a process whose compiled kernels are not left for a run that is timed."""
    options = ["--workload", "gpt", "--precision", precision, *([] if compiled else ["--no-compile"])]
    command = [sys.executable, "-m", "benchmarks.throughput", str(data_dir), "--gate", *options]
    with tempfile.TemporaryDirectory() as folder:
        return child(command, {"TORCHINDUCTOR_CACHE_DIR": folder})


def scores_of(command: list[str]) -> list[dict[str, Any]]:
    """All lines of JSON that a command prints, told as they come."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = []
        for line in process.stdout:
            if line.startswith('{"'):  # a Trainer prints dicts of its own
                print(line, end="", flush=True)
                found.append(json.loads(line))
    if process.returncode or not found:
        raise SystemExit(f"{shlex.join(command)} failed or printed no score")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peer", metavar="COMMAND")
    parser.add_argument("--steps", type=int, default=300, help="of the peer")
    parser.add_argument("--track", choices=list(METHODS), action="append", help="default: all")
    parser.add_argument("--share", type=float, help="of the peer's tokens that ours takes; default: the track's own")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--only", choices=list(METHODS), help="run ours once in this process")
    arguments = parser.parse_args()
    tracks, steps = arguments.track or list(METHODS), arguments.steps
    if arguments.only:
        share = arguments.share or SHARES[arguments.only]
        run_ours(arguments.data, arguments.only, steps, share, arguments.precision, not arguments.no_compile)
        return
    if arguments.peer is None:
        parser.error("--peer is missing")
    if "T2" in tracks:
        print(json.dumps(gate(arguments.data, arguments.precision, not arguments.no_compile)), flush=True)
    theirs = shlex.split(arguments.peer.format(steps=steps, data=arguments.data))
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {track: [] for track in tracks}
    for _ in range(arguments.rounds):
        last = scores_of(theirs)[-1]
        for track in tracks:
            scores = scores_of([sys.executable, "-m", "benchmarks.time_to_loss", *sys.argv[1:], "--only", track])
            reached = [score for score in scores if score["bits_per_byte"] <= last["bits_per_byte"]]
            if reached:
                found[track].append((last, reached[0]))
            else:
                print(f"{track} never came to the peer's {last['bits_per_byte']}: a larger --share?", file=sys.stderr)
    print("\n| system | tokens | bits per byte | seconds | its seconds / ours | 95 % |\n|---|---|---|---|---|---|")
    for number, pairs in enumerate(pairs for pairs in found.values() if pairs):
        peers, ours = zip(*pairs, strict=True)
        if number == 0:
            print(f"| {_cells(peers)} | | |")
        ratios = [its["train_s"] / mine["train_s"] for its, mine in pairs]
        low, high = interval(ratios)
        print(f"| {_cells(ours)} | {statistics.median(ratios):.2f} | {low:.2f} - {high:.2f} |")


def _cells(scores: Sequence[dict[str, Any]]) -> str:
    """A system and the medians of its scores."""
    seconds, tokens, bits = (
        statistics.median(score[key] for score in scores) for key in ("train_s", "tokens", "bits_per_byte")
    )
    return f"{scores[0]['system']} | {tokens:,.0f} | {bits:.4f} | {seconds:.1f}"


if __name__ == "__main__":
    main()
