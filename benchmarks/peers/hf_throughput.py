"""Hugging Face's Trainer on a workload of benchmarks/throughput.py: useful tokens a second.

    python -m benchmarks.peers.hf_throughput WORKLOAD STEPS DATA [--as tuned|bf16|default] [--precision fp32|bf16]

benchmarks/peers/_hf.py says what the contenders are and what they read. AdamW at a constant 1e-3. Prints one line of
JSON, as a peer of the throughput benchmark does: `tokens_per_s` (without padding, at the median step, compilation left
out), `peak_gib` and the last `loss`.
"""

import argparse
import json
import tempfile

from benchmarks._compare import machine, peak_gib, steady
from benchmarks.peers._hf import Clock, add_options, checked, trainer_of
from benchmarks.workloads import WORKLOADS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    add_options(parser)
    given = checked(parser)
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        trainer, num_tokens, settings = trainer_of(given.workload, given, out, [clock], lr_scheduler_type="constant")
        trainer.train()
    step = steady(clock.seconds)
    work = WORKLOADS[given.workload]
    found = {
        "system": f"HF {given.way}",
        "workload": given.workload,
        "precision": given.precision,
        "tokens_per_s": round(num_tokens / given.steps / step),
        "step_s": round(step, 3),
        "useful_share": round(num_tokens / (given.steps * work.rows * work.row_length), 3),
        "peak_gib": round(peak_gib(), 2),
        "loss": round(trainer.loss, 3),
        "total_s": round(sum(clock.seconds), 1),
        "steps_s": [round(one, 4) for one in clock.seconds],
        "settings": settings,
        "machine": machine(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
