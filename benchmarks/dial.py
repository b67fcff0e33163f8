"""Does the one dial transfer: held-back text after equal tokens at several depths, each at several times its own rate.

    python -m benchmarks.dial DATA [--depth 2 --depth 4 --depth 6] [--times 0.5 --times 1 --times 2] [--tokens 400000]
        [--optimizer muon]

DATA is that of benchmarks/time_to_loss.py. Shape, rate, batch and row length are what `model.depth` alone gives
(foundling/train/dial.py), the optimizer's other settings and the schedule a recipe's defaults; what differs within a
row of the table is the peak rate alone (of muon that of the matrices; what else it trains keeps AdamW's). The dial
transfers where the best column is the same one in each row, and where a deeper model is a better one. One JSON line a
run, then the table. Nothing is timed.
"""

import argparse
import json
from pathlib import Path
from typing import Any, cast

from benchmarks._compare import machine
from benchmarks.time_to_loss import texts_of
from benchmarks.workloads import settings_of, tokenizer_of, training_of
from foundling.evaluation.perplexity import perplexity
from foundling.models.base import Model
from foundling.train import dial
from foundling.train.loop import training_step


def run(data_dir: Path, depth: int, times: float, num_tokens: int, optimizer: str) -> dict[str, Any]:
    """One training at a multiple of the dial's rate (AdamW's), and its score."""
    shape, row_length = dial.shape_of_depth(depth), dial.default_row_length(depth)
    lr = times * dial.default_lr(shape["width"])
    batch = dial.default_batch_tokens(num_tokens)
    steps = num_tokens // batch
    training = training_of(
        data_dir, "gpt", "fp32", False, 8, method={"optimizer": {"kind": optimizer, "lr": lr}}, lr=lr, steps=steps,
        size={**shape, "max_positions": row_length}, rows=batch // row_length,
    )  # fmt: skip
    for _ in range(steps):
        training_step(training)
    with training.trainee.scoring():
        model = cast(Model, training.trainee.model)
        score = perplexity(model, tokenizer_of(data_dir, "gpt"), texts_of(data_dir), row_length=row_length).total
    weights = sum(parameter.numel() for parameter in training.model.parameters())
    return {
        "depth": depth, "width": shape["width"], "weights": weights, "batch": batch, "tokens": training.num_tokens,
        "times": times, "lr": lr, "bits_per_byte": round(score.bits_per_byte, 4),
        "settings": settings_of(training), "machine": machine(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--depth", type=int, action="append", help="default: 2, 4 and 6")
    parser.add_argument("--times", type=float, action="append", help="of the dial's rate; default: 0.5, 1 and 2")
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    arguments = parser.parse_args()
    depths, times = arguments.depth or [2, 4, 6], arguments.times or [0.5, 1.0, 2.0]
    table = []
    for depth in depths:
        found = []
        for factor in times:
            found.append(run(arguments.data, depth, factor, arguments.tokens, arguments.optimizer))
            print(json.dumps(found[-1]), flush=True)
        first, best = found[0], min(one["bits_per_byte"] for one in found)
        cells = [f"**{b:.4f}**" if (b := one["bits_per_byte"]) == best else f"{b:.4f}" for one in found]
        rate = first["lr"] / first["times"]
        table.append(
            f"| {depth} x {first['width']} | {first['weights'] / 1e6:.1f}M | {rate:.2g} | {' | '.join(cells)} |"
        )
    print("\n| depth x width | weights | the dial's rate |" + "".join(f" {factor:g} times |" for factor in times))
    print("|---|---|---|" + "---|" * len(times))
    print("\n".join(table))


if __name__ == "__main__":
    main()
