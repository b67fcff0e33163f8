"""Training speed of the engine on the same tokens, model and batch as a peer, taking turns (track T1).

    python -m benchmarks.throughput DATA [--workload gpt] [--steps 16] [--rounds 5] [--peer NAME="COMMAND" ...]

DATA holds `bpe.bin` (uint16 token ids) and `bpe.json` (its tokenizer). A peer is any command that prints one line of
JSON with `tokens_per_s` (at its median step, compilation left out) and `peak_gib`; `{steps}` and `{data}` in it are
filled in. Each round runs ours and each peer once, each in a fresh process, so a slow minute hits all; the table has
medians and the ratio's 95 % interval over rounds. One JSON line a run goes to standard output.

Before any figure, a parity gate: from the same weights, our first loss and gradients must be those of transformers'
GPT2LMHeadModel in fp32, and our bf16 loss must agree with it.
"""

import argparse
import json
import random
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORKLOADS: dict[str, dict[str, Any]] = {
    "gpt": {"layers": 6, "width": 384, "heads": 6, "row_length": 256, "rows": 32},
    "gpt124": {"layers": 12, "width": 768, "heads": 12, "row_length": 512, "rows": 8},
}
"""GPT-2 mathematics with a vocabulary of 8,192."""


def _training(data_dir: Path, workload: str, precision: str, compiled: bool, micro_batch: int) -> Any:
    """A run of the real engine over the memory-mapped tokens: the loop's own step, nothing made for the benchmark."""
    import numpy as np
    import tokenizers
    import torch

    from foundling.data.mixture import Mixture
    from foundling.parallel.world import World
    from foundling.tokenizers.base import SpecialTokens, Tokenizer
    from foundling.train.build import build
    from foundling.train.prepare import Data
    from foundling.train.recipe import recipe_from
    from foundling.train.settings import Settings

    class Memory:
        """Token ids in a file, as a stream."""

        def __init__(self, path: Path) -> None:
            self._ids = np.memmap(path, dtype=np.uint16, mode="r")
            self.num_tokens = len(self._ids)

        def read(self, start: int, length: int) -> Any:
            return self._ids[start : start + length].astype(np.int64)

    shape = dict(WORKLOADS[workload])
    row_length, rows = shape.pop("row_length"), shape.pop("rows")
    raw = tokenizers.Tokenizer.from_file(str(data_dir / "bpe.json"))
    tokenizer = Tokenizer(raw, SpecialTokens(), kind="bpe")
    stream: Any = Memory(data_dir / "bpe.bin")
    data = Data([], ["bench"], Mixture(), tokenizer, data_dir, [stream], [stream], ["bench"], {})
    recipe = recipe_from(
        {
            "name": "bench",
            "corpus": {"train": "none"},
            "tokenizer": {"path": "none"},
            "model": {"family": "gpt", "size": {**shape, "math": "gpt2"}},
            "optimizer": {"kind": "adamw", "lr": 1e-3},
            "schedule": {"kind": "constant", "warmup": 0},
        }
    )
    settings = Settings(row_length, rows, micro_batch, 10**6, 1e-3, precision, compiled)
    return build(recipe, data, Path("none"), World(0, 1, torch.device("cpu"), None), settings)


def run_ours(
    data_dir: Path, workload: str, steps: int, precision: str, compiled: bool, micro_batch: int
) -> dict[str, Any]:
    """One contender's run in this process."""
    from foundling.train.loop import training_step

    training = _training(data_dir, workload, precision, compiled, micro_batch)
    seconds, start = [], time.perf_counter()
    for _ in range(steps):
        before = time.perf_counter()
        training_step(training)
        seconds.append(time.perf_counter() - before)
    skip = max(3, steps // 3)
    step = statistics.median(seconds[skip:])
    tokens = training.settings.tokens_per_step
    rate = tokens / step
    return {
        "system": "foundling",
        "workload": workload,
        "precision": precision,
        "tokens_per_s": round(rate),
        "step_s": round(step, 3),
        "share_of_matmul_limit": round(rate * training.flops_per_token / training.precision.flops_per_second, 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "loss": round(training.metrics["loss"], 3),
        "warm_s": round(sum(seconds[:skip]), 1),
        "total_s": round(time.perf_counter() - start, 1),
    }


def parity(data_dir: Path, workload: str) -> dict[str, float]:
    """Largest relative difference of loss and gradients from transformers' model with the same weights."""
    import torch
    from transformers import GPT2LMHeadModel

    from foundling.models.hub import save_model
    from foundling.objectives.base import Scale
    from foundling.train.build import whole_model
    from foundling.train.loop import micro_batches

    ours = _training(data_dir, workload, "fp32", False, 2)
    batch = micro_batches(ours)[0]
    scale = Scale(1 / batch.num_targets, 1 / batch.num_rows)
    loss = ours.trainee(batch, scale)["causal"]
    loss.backward()
    gradients = {slot.name: slot.gradient.clone() for slot in ours.optimizer.slots}
    with tempfile.TemporaryDirectory() as folder:
        save_model(whole_model(ours), folder)
        peer = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager")
    peer.eval()
    ids = batch.tokens_N.view(batch.num_rows, -1)
    targets = batch.targets_M.view(batch.num_rows, -1)
    logits = peer(ids).logits
    peer_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    peer_loss.backward()
    theirs = dict(peer.named_parameters())
    pairs = {
        "embedding.weight": theirs["transformer.wte.weight"],
        "layers.0.mlp.up.weight": theirs["transformer.h.0.mlp.c_fc.weight"],
        "layers.0.attention.out.weight": theirs["transformer.h.0.attn.c_proj.weight"],
    }
    found = {"loss": abs(loss.item() - peer_loss.item()) / peer_loss.item()}
    for name, parameter in pairs.items():
        assert parameter.grad is not None
        their = parameter.grad if name.startswith("embedding") else parameter.grad.t()
        found[name] = ((gradients[name] - their).norm() / their.norm()).item()
    lower = _training(data_dir, workload, "bf16", False, 2)
    found["bf16 loss"] = abs(lower.trainee(batch, scale)["causal"].item() - peer_loss.item()) / peer_loss.item()
    assert all(value < 1e-4 for name, value in found.items() if name != "bf16 loss"), found
    assert found["bf16 loss"] < 5e-3, found
    return found


def _child(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


def _interval(ratios: list[float], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws) - 1]


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
    parser.add_argument("--only", action="store_true", help="run ours once in this process and print its line")
    given = parser.parse_args()
    if given.only:
        compiled = not given.no_compile
        found = run_ours(given.data, given.workload, given.steps, given.precision, compiled, given.micro_batch)
        print(json.dumps(found))
        return
    print(json.dumps({"parity": parity(given.data, given.workload)}), flush=True)
    fills = {"steps": given.steps, "data": given.data}
    peers = {name: shlex.split(command.format(**fills)) for name, command in (p.split("=", 1) for p in given.peer)}
    mine = [sys.executable, "-m", "benchmarks.throughput", *sys.argv[1:], "--only"]
    runs: dict[str, list[dict[str, Any]]] = {"foundling": [], **{name: [] for name in peers}}
    for _ in range(given.rounds):
        for name, command in (("foundling", mine), *peers.items()):
            runs[name].append(_child(command))
            print(json.dumps(runs[name][-1]), flush=True)
    print("\n| system | tokens/s (median) | peak GiB | ours / it | 95 % |\n|---|---|---|---|---|")
    ours = [run["tokens_per_s"] for run in runs["foundling"]]
    for name, found in runs.items():
        rates = [run["tokens_per_s"] for run in found]
        ratios = [mine / its for mine, its in zip(ours, rates, strict=True)]
        low, high = _interval(ratios)
        peak = statistics.median(run["peak_gib"] for run in found)
        median = statistics.median(ratios)
        print(f"| {name} | {statistics.median(rates):,.0f} | {peak:.2f} | {median:.2f} | {low:.2f} - {high:.2f} |")


if __name__ == "__main__":
    main()
