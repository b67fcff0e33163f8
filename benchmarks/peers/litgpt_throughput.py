"""litgpt on a gpt workload of benchmarks/throughput.py: useful tokens a second.

    PYTHON -m benchmarks.peers.litgpt_throughput gpt STEPS DATA [--precision bf16-mixed|32-true]

PYTHON is that of an environment with litgpt 0.5 (`pip install litgpt "numpy<2"`), called in this folder. A GPT of the
workload's shape of litgpt's parts, as its own pretraining trains it: LayerNorm, GELU, biases, compiled, AdamW 1e-3,
gradients clipped at 1.0, through Lightning's Fabric. What differs from GPT-2's mathematics: positions are rotary and
the head has a matrix of its own. Rows are the workload's, in its order. Prints the line of JSON that the throughput
benchmark asks of a peer.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from litgpt import GPT, Config
from litgpt.utils import chunked_cross_entropy

from benchmarks._compare import machine, peak_gib, steady
from benchmarks.workloads import WORKLOADS, data_of, tokenizer_of


def config_of(name: str, data_dir: Path) -> Config:
    work = WORKLOADS[name]
    return Config(
        name=name, block_size=work.row_length, vocab_size=tokenizer_of(data_dir, name).vocab_size,
        n_layer=work.size["layers"], n_embd=work.size["width"], n_head=work.size["heads"],
        norm_class_name="LayerNorm", mlp_class_name="GptNeoxMLP", gelu_approximate="tanh",
        bias=True, attn_bias=True, parallel_residual=False, rotary_percentage=1.0,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=[name for name, work in WORKLOADS.items() if work.family == "gpt"])
    parser.add_argument("steps", type=int)
    parser.add_argument("data", type=Path)
    parser.add_argument("--precision", choices=("bf16-mixed", "32-true"), default="bf16-mixed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    work = WORKLOADS[given.workload]
    _, samples = data_of(given.data, given.workload)
    rows = [torch.from_numpy(samples[number].tokens) for number in range(given.steps * work.rows)]
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # as its pretraining sets it
    fabric = lightning.Fabric(accelerator="cuda" if on_gpu else "cpu", devices=1, precision=given.precision)
    fabric.launch()
    fabric.seed_everything(given.seed)
    config = config_of(given.workload, given.data)
    with fabric.init_module():
        plain = GPT(config)
    plain.max_seq_length = work.row_length
    model: Any = fabric.setup(torch.compile(plain))
    optimizer: Any = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=1e-3, fused=on_gpu))
    seconds, loss, last = [], torch.tensor(float("nan")), time.perf_counter()
    for step in range(given.steps):
        rows_RT1 = fabric.to_device(torch.stack(rows[step * work.rows : (step + 1) * work.rows]))
        logits_RTV = model(rows_RT1[:, :-1].contiguous())
        loss = chunked_cross_entropy(logits_RTV, rows_RT1[:, 1:].contiguous(), chunk_size=0)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    step_s = steady(seconds)
    found = {
        "system": "litgpt",
        "workload": given.workload,
        "precision": given.precision,
        "tokens_per_s": round(work.rows * work.row_length / step_s),
        "step_s": round(step_s, 3),
        "peak_gib": round(peak_gib(), 2),
        "loss": round(loss.item(), 3),
        "total_s": round(sum(seconds), 1),
        "steps_s": [round(one, 4) for one in seconds],
        "settings": {"config": config.__dict__, "weights": sum(p.numel() for p in model.parameters())},
        "machine": machine(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
