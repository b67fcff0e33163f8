"""Training speed of the engine on the same tokens, model and batch as a peer, taking turns (track T1).

    python -m benchmarks.throughput DATA [--workload gpt] [--steps 16] [--rounds 5] [--peer NAME="COMMAND" ...]

DATA holds `bpe.bin` and `wp.bin` (uint16 token ids), `bpe.json` and `wp.json` (their tokenizers), `bpe_starts.npy` and
`wp_starts.npy` (where documents start). A peer is any command that prints one line of JSON with `tokens_per_s` (useful
tokens, at its median step, compilation left out) and `peak_gib`; `{steps}` and `{data}` in it are filled in. Each round
runs ours and each peer once, each in a fresh process, so a slow minute hits all; the table has medians and the ratio's
95 % interval over rounds. One JSON line a run goes to standard output.

Before any figure, a parity gate (benchmarks/parity/FAMILY.py, alone with `--gate`): from the same weights our first
loss and the gradients of all weights must be those of transformers' model in fp32, and where bf16 is timed its
loss must agree with it. Ours is compiled there where it is when it is timed.

    --peer tuned="python -m benchmarks.peers.hf_throughput gpt {steps} {data}"
    --peer default="python -m benchmarks.peers.hf_throughput gpt {steps} {data} --as default"
    --peer litgpt="PYTHON_WITH_LITGPT -m benchmarks.peers.litgpt_throughput gpt {steps} {data}"

On a GPU (`--device cuda`; auto takes one where there is one) memory is what torch allocated there at most, and the
share of the matmul limit is the MFU against the card's own measured rate. The gate runs on the CPU.
"""

import argparse
import importlib
import json
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._compare import child, interval, machine, peak_gib, steady
from benchmarks.workloads import WORKLOADS, settings_of, training_of
from foundling.train.loop import training_step
from foundling.train.machine import device_here


def run_ours(
    data_dir: Path, workload: str, steps: int, precision: str, compiled: bool, micro_batch: int, device: torch.device
) -> dict[str, Any]:
    """One contender's run in this process."""
    on_gpu = device.type == "cuda"
    training = training_of(data_dir, workload, precision, compiled, micro_batch, device=device)
    seconds, tokens, start = [], [], time.perf_counter()
    for _ in range(steps):
        before, seen = time.perf_counter(), training.num_tokens
        training_step(training)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - before)
        tokens.append(training.num_tokens - seen)
    step = steady(seconds)
    rate = statistics.mean(tokens) / step
    return {
        "system": "foundling",
        "workload": workload,
        "precision": precision,
        "tokens_per_s": round(rate),
        "step_s": round(step, 3),
        "share_of_matmul_limit": round(rate * training.flops_per_token / training.precision.flops_per_second, 3),
        "peak_gib": round(peak_gib(), 2),
        "loss": round(training.metrics["loss"], 3),
        "total_s": round(time.perf_counter() - start, 1),
        "steps_s": [round(one, 4) for one in seconds],
        "settings": settings_of(training),
        "machine": machine(),
    }


def device_of(name: str) -> torch.device:
    """SystemExit: a GPU is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda needs a CUDA device; there is none here: take --device cpu")
    return device_here() if name == "auto" else torch.device(name)


def parity(data_dir: Path, workload: str, precision: str, compiled: bool) -> dict[str, float]:
    """What the gate of the workload's family measures; it holds where all but the bf16 loss agree to 1e-4.

    precision, compiled: of the run that is timed.
    """
    gate = importlib.import_module(f"benchmarks.parity.{WORKLOADS[workload].family}")
    make = lambda precision: training_of(data_dir, workload, precision, compiled, 2)
    found: dict[str, float] = gate.parity(make, bf16=precision == "bf16")
    assert all(value < 1e-4 for name, value in found.items() if name != "bf16 loss"), found
    assert found.get("bf16 loss", 0.0) < 5e-3, found
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--workload", choices=WORKLOADS, default="gpt")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], metavar='NAME="COMMAND"')
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--only", action="store_true", help="run ours once in this process and print its line")
    parser.add_argument("--gate", action="store_true", help="run the parity gate in this process and print its line")
    given = parser.parse_args()
    device, compiled = device_of(given.device), not given.no_compile
    if given.gate:
        apart = parity(given.data, given.workload, given.precision, compiled)
        print(json.dumps({"parity": apart, "machine": machine()}))
        return
    if given.only:
        run = run_ours(given.data, given.workload, given.steps, given.precision, compiled, given.micro_batch, device)
        print(json.dumps(run))
        return
    mine = [sys.executable, "-m", "benchmarks.throughput", *sys.argv[1:]]
    print(json.dumps(child([*mine, "--gate"])), flush=True)
    fills = {"steps": given.steps, "data": given.data}
    peers = {name: shlex.split(command.format(**fills)) for name, command in (p.split("=", 1) for p in given.peer)}
    runs: dict[str, list[dict[str, Any]]] = {"foundling": [], **{name: [] for name in peers}}
    for _ in range(given.rounds):
        for name, command in (("foundling", [*mine, "--only"]), *peers.items()):
            runs[name].append(child(command))
            print(json.dumps(runs[name][-1]), flush=True)
    print("\n| system | tokens/s (median) | peak GiB | ours / it | 95 % |\n|---|---|---|---|---|")
    ours = [run["tokens_per_s"] for run in runs["foundling"]]
    for name, found in runs.items():
        rates = [run["tokens_per_s"] for run in found]
        ratios = [our / its for our, its in zip(ours, rates, strict=True)]
        low, high = interval(ratios)
        peak = statistics.median(run["peak_gib"] for run in found)
        median = statistics.median(ratios)
        print(f"| {name} | {statistics.median(rates):,.0f} | {peak:.2f} | {median:.2f} | {low:.2f} - {high:.2f} |")


if __name__ == "__main__":
    main()
