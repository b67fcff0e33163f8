"""Hugging Face's Trainer on the gpt workload, scored as it goes: the peer of benchmarks/time_to_loss.py.

    python -m benchmarks.peers.hf_time_to_loss STEPS DATA [--as tuned|bf16|default] [--precision fp32|bf16] [--lr 1e-3]

benchmarks/peers/_hf.py says what the contenders are and what they read. The rate rises over the first tenth of the
steps, 100 at most, and falls linearly to nothing at the last; weight decay 0.1. After each sixth of the steps it prints
a line of JSON: `step`, `tokens`, `train_s` (compilation included, scoring left out) and `bits_per_byte` of
`valid.jsonl`, in the rows and over the bytes that ours is scored by, in the precision that it trains in.
"""

import argparse
import json
import tempfile
import time
from typing import Any, cast

from torch import Tensor
from torch.nn import functional as F

from benchmarks._compare import machine
from benchmarks.peers._hf import Clock, add_options, checked, trainer_of
from benchmarks.time_to_loss import PEER_BATCH, ROW_TOKENS, SCORES, texts_of
from benchmarks.workloads import tokenizer_of
from foundling.data.batch import Batch
from foundling.evaluation.perplexity import perplexity
from foundling.models.base import Model


class _Causal:
    """The losses of a transformers model in rows of one length, as `perplexity` asks for them."""

    def scores(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        logits_RTV = model(input_ids=batch.tokens_N.view(batch.num_rows, -1)).logits
        return {"loss": F.cross_entropy(logits_RTV.flatten(0, 1).float(), batch.targets_M, reduction="none")}


class _Scores(Clock):
    """Tells a score after each sixth of the steps, and leaves its time out."""

    def __init__(self, given: argparse.Namespace) -> None:
        super().__init__()
        self.given, self.settings = given, dict[str, Any]()
        self._texts, self._tokenizer = texts_of(given.data), tokenizer_of(given.data, "gpt")

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        super().on_step_end()
        step, every = state.global_step, max(1, self.given.steps // SCORES)
        if step % every and step != self.given.steps:
            return
        model = named["model"].eval()
        score = perplexity(
            cast(Model, model), self._tokenizer, self._texts, row_length=ROW_TOKENS, objective=cast(Any, _Causal())
        ).total
        model.train()
        found = {
            "system": f"HF {self.given.way}",
            "step": step,
            "tokens": step * PEER_BATCH,
            "train_s": round(sum(self.seconds), 1),
            "bits_per_byte": round(score.bits_per_byte, 4),
            "steps_s": [round(one, 4) for one in self.seconds],
            "settings": self.settings,
            "machine": machine(),
        }
        print(json.dumps(found), flush=True)
        self.last = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--lr", type=float, default=1e-3)
    given = checked(parser)
    scores = _Scores(given)
    with tempfile.TemporaryDirectory() as out:
        trainer, _, scores.settings = trainer_of(
            "gpt", given, out, [scores], learning_rate=given.lr, weight_decay=0.1,
            lr_scheduler_type="linear", warmup_steps=min(100, given.steps // 10),
        )  # fmt: skip
        trainer.train()


if __name__ == "__main__":
    main()
