"""Hugging Face's Trainer on the workloads of benchmarks/workloads.py: what its throughput and its time to a loss share.

A contender is one of three:

- `default`: the Trainer as it comes, in fp32, with the models' own dropout of 0.1.
- `bf16`: the same with bf16=True.
- `tuned`: bf16 autocast (fp32 where that is asked for), torch.compile, no dropout, fused AdamW, medium precision of
  matrix products.

Models have the workload's shape and initial values of their own. Rows are the workload's, in its order: gpt's as they
are; bert's pairs with the workload's masks, padded to the row length, so that all batches have one shape; of xlnet's
the text, from which transformers' collator for permutations draws what is predicted. They are read before anything is
timed; what a collator does is timed.
"""

import os
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForPreTraining,
    DataCollatorForPermutationLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    XLNetConfig,
    XLNetLMHeadModel,
    set_seed,
)

from benchmarks.workloads import WORKLOADS, data_of, tokenizer_of
from foundling.data.batch import Batch

WAYS = ("tuned", "bf16", "default")
DROPOUT = 0.1
_LEFT_OUT = -100


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("steps", type=int)
    parser.add_argument("data", type=Path)
    parser.add_argument("--as", choices=WAYS, default="tuned", dest="way", help="which contender; default: tuned")
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="of tuned; default: bf16")
    parser.add_argument("--seed", type=int, default=0)


def checked(parser: ArgumentParser) -> Namespace:
    """The options, with the precision that the contender has."""
    given = parser.parse_args()
    if given.way != "tuned" and given.precision:
        parser.error(f"--precision is for --as tuned: {given.way} has its own")
    given.precision = given.precision or ("fp32" if given.way == "default" else "bf16")
    return given


def model_of(name: str, data_dir: Path, dropout: float) -> Any:
    """A new model of a workload's shape."""
    work = WORKLOADS[name]
    layers, width, heads = (work.size[key] for key in ("layers", "width", "heads"))
    vocab_size = tokenizer_of(data_dir, name).vocab_size
    if work.family == "gpt":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab_size, n_positions=work.row_length, n_layer=layers, n_embd=width, n_head=heads,
                attn_pdrop=dropout, resid_pdrop=dropout, embd_pdrop=dropout, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
    if work.family == "bert":
        return BertForPreTraining(
            BertConfig(
                vocab_size=vocab_size, max_position_embeddings=work.row_length, num_hidden_layers=layers,
                hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width,
                hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
            )
        )  # fmt: skip
    return XLNetLMHeadModel(
        XLNetConfig(
            vocab_size=vocab_size, n_layer=layers, d_model=width, n_head=heads, d_inner=4 * width,
            ff_activation="gelu", dropout=dropout,
        )
    )  # fmt: skip


def examples_of(name: str, data_dir: Path, steps: int) -> tuple[list[dict[str, Tensor]], int]:
    """The rows of so many steps as a model reads them, and how many tokens of them are no padding."""
    work = WORKLOADS[name]
    objective, samples = data_of(data_dir, name)
    rows = [samples[number] for number in range(steps * work.rows)]
    if work.family == "bert":
        batch = objective.collate(rows)
        return padded(batch, work.row_length), batch.num_tokens
    texts = [torch.from_numpy(row.tokens[: work.row_length]) for row in rows]
    if work.family == "gpt":
        return [{"input_ids": text, "labels": text} for text in texts], len(texts) * work.row_length
    return [{"input_ids": text} for text in texts], len(texts) * work.row_length


def padded(batch: Batch, length: int) -> list[dict[str, Tensor]]:
    """The rows of a packed batch of sentence pairs, each filled up with padding (id 0) to the same length."""
    assert batch.segments_N is not None
    assert batch.target_index_M is not None
    assert batch.labels_R is not None
    labels_N = torch.full_like(batch.tokens_N, _LEFT_OUT)
    labels_N[batch.target_index_M] = batch.targets_M
    attended_N = torch.ones_like(batch.tokens_N)
    columns = {
        "input_ids": (batch.tokens_N, 0),
        "token_type_ids": (batch.segments_N, 0),
        "attention_mask": (attended_N, 0),
        "labels": (labels_N, _LEFT_OUT),
    }
    found: list[dict[str, Tensor]] = [{"next_sentence_label": label} for label in batch.labels_R]
    for column, (values_N, filler) in columns.items():
        for row, values_T in zip(found, values_N.split(batch.tokens_of_rows), strict=True):
            row[column] = torch.nn.functional.pad(values_T, (0, length - len(values_T)), value=filler)
    return found


def collator_of(name: str, data_dir: Path) -> Any:
    """transformers' for permutations, where the workload has them. The end token, which stands between documents and is
    not predicted, also stands for its mask and padding, of which there is none."""
    work = WORKLOADS[name]
    if work.family != "xlnet":
        return None
    end = tokenizer_of(data_dir, name).special.by_role["eos"]
    file = str(data_dir / f"{work.tokens}.json")
    return DataCollatorForPermutationLanguageModeling(
        PreTrainedTokenizerFast(tokenizer_file=file, eos_token=end, mask_token=end, pad_token=end)
    )


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of each step, the first from the beginning of the training."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.last = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.last = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now


class TimedTrainer(Trainer):  # type: ignore[misc]
    """The Trainer, which keeps the loss of its last step."""

    loss = float("nan")

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        loss: Tensor = super().training_step(*arguments, **named)
        self._last = loss
        return loss

    def train(self, *arguments: Any, **named: Any) -> Any:
        found = super().train(*arguments, **named)
        self.loss = float(self._last)
        return found


def trainer_of(
    name: str, given: Namespace, out: str, callbacks: list[TrainerCallback], **arguments: Any
) -> tuple[TimedTrainer, int, dict[str, Any]]:
    """A contender's Trainer for a workload, the tokens of its rows without padding, and what it was set to.

    out: an empty folder. arguments: what else is said to the Trainer.
    """
    work = WORKLOADS[name]
    set_seed(given.seed)
    tuned = given.way == "tuned"
    if tuned:
        torch.set_float32_matmul_precision("medium")
    said = {
        "max_steps": given.steps,
        "per_device_train_batch_size": work.rows,
        "learning_rate": 1e-3,
        "bf16": given.precision == "bf16",
        **({"torch_compile": True, "optim": "adamw_torch_fused"} if tuned else {}),
        **arguments,
    }
    examples, num_tokens = examples_of(name, given.data, given.steps)
    trainer = TimedTrainer(
        model=model_of(name, given.data, 0.0 if tuned else DROPOUT),
        args=TrainingArguments(
            output_dir=out, use_cpu=not torch.cuda.is_available(), report_to=[], save_strategy="no",
            disable_tqdm=True, logging_steps=given.steps, remove_unused_columns=False, seed=given.seed,
            train_sampling_strategy="sequential", **said,
        ),
        train_dataset=examples, data_collator=collator_of(name, given.data), callbacks=callbacks,
    )  # fmt: skip
    settings = {"as": given.way, "precision": given.precision, **said, "model": trainer.model.config.to_diff_dict()}
    return trainer, num_tokens, settings
