"""Hugging Face's Trainer pretrains a decoder for so many minutes: the model and tokens of benchmarks/pretraining.py.

    python -m benchmarks.peers.hf_pretraining CONFIG TOKENS TOKENIZER OUT --minutes 20

The tuned Trainer: bf16, torch.compile, fused AdamW, medium matmul precision, no dropout. CONFIG is a model folder whose
`config.json` says the shape; weights are new, as the class initialises them. Rows are cut from the token store in order
and drawn at random. The rate warms up over the first twentieth of the time and falls to nothing by its end, so that a
slower minute costs tokens and no schedule. Prints one line of JSON: weights, tokens, seconds (compilation included).
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from foundling.data.store import TokenStore
from foundling.tokenizers.base import load_tokenizer


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Ends the training when its time is over, and says how much of it is."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.start, self.steps = seconds, time.perf_counter(), 0

    def share(self) -> float:
        return min(1.0, (time.perf_counter() - self.start) / self.seconds)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps = state.global_step
        control.should_training_stop = self.share() >= 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("config", "tokens", "tokenizer", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--row-length", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    torch.set_float32_matmul_precision("medium")
    stream = TokenStore.open(given.tokens, load_tokenizer(given.tokenizer).sha256).split("train")
    ids = torch.from_numpy(stream.read(0, stream.num_tokens))
    rows = ids[: len(ids) // given.row_length * given.row_length].view(-1, given.row_length)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(given.config), dtype=torch.float32)
    clock = _Clock(60 * given.minutes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr, weight_decay=0.1, fused=True)

    def factor(_: int) -> float:
        share = clock.share()
        return max(1e-3, min(share / 0.05, (1 - share) / 0.95))

    settings = TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=10**6, per_device_train_batch_size=given.rows, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=200, bf16=True, torch_compile=True,
        remove_unused_columns=False, seed=given.seed,
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=settings, train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        callbacks=[clock], optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)),
    )  # fmt: skip
    trainer.train()
    seconds = time.perf_counter() - clock.start
    model.save_pretrained(given.out)
    for file in given.tokenizer.glob("tokenizer*.json"):
        shutil.copy(file, given.out)
    tokens = clock.steps * given.rows * given.row_length
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"weights": weights, "tokens": tokens, "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
