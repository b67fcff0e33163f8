"""Hugging Face's Trainer on a task of benchmarks/finetuning.py, with equal hyper-parameters.

    python -m benchmarks.peers.hf_finetuning TRAIN DEV TEST --kind ner --base FOLDER [--bf16]

- `classification`: a text or a pair of texts, AutoModelForSequenceClassification.
- `relation`: the same; <e1>, </e1>, <e2> and </e2> stay in the text and are tokens of their own, new to the vocabulary.
- `ner`: AutoModelForTokenClassification; the first token of a word has its tag, the others none. Words that are cut off
  are answered O, and tags are read as seqeval does by default.

Linear with 10 % warm-up, weight decay 0.01, padding to the longest of a batch, dev measured after each epoch and the
best epoch kept. Prints one line of JSON: `test_FIGURE`, `train_s` and `tokens_per_s` (without padding) of the training
with its measuring of dev, and the `answers` to the test examples. Figures are those of our metrics.
"""

import argparse
import gzip
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from foundling.core.registry import load_part
from foundling.evaluation.metrics.entity_f1 import entities

MARKS = ["<e1>", "</e1>", "<e2>", "</e2>"]
METRICS = {"classification": ("accuracy", "accuracy"), "relation": ("semeval", "f1_macro"), "ner": ("entity_f1", "f1")}
"""Kind of task -> the metric and its main figure."""
_PAIRS = (("premise", "hypothesis"), ("title", "description"))
_LEFT_OUT = -100


def read(path: str) -> list[dict[str, Any]]:
    raw = Path(path).read_bytes()
    text = (gzip.decompress(raw) if path.endswith(".gz") else raw).decode()
    return [json.loads(line) for line in text.splitlines()]


def texts_of(row: dict[str, Any]) -> list[str]:
    """The text of a row, or its two."""
    if "text" in row:
        return [row["text"]]
    return next([row[name] for name in pair] for pair in _PAIRS if all(name in row for name in pair))


def words_of(encoded: Any) -> list[int]:
    """The word that each token is the first of; -1 for the others."""
    found, last = [], None
    for word in encoded.word_ids():
        found.append(-1 if word is None or word == last else word)
        last = word
    return found


class Task:
    """Rows to features, and logits back to answers."""

    def __init__(self, given: argparse.Namespace, train: list[dict[str, Any]]) -> None:
        self.given, self.of_words = given, given.kind == "ner"
        self.tokenizer = AutoTokenizer.from_pretrained(given.base)
        if given.kind == "relation":
            self.tokenizer.add_tokens(MARKS)
        said = [tag for row in train for tag in row["tags"]] if self.of_words else [str(row["label"]) for row in train]
        self.labels = sorted(set(said))
        metric, self.figure = METRICS[given.kind]
        self.metric = load_part("evaluation.metrics", metric).Config(kind=metric).build()

    def model(self) -> Any:
        config = AutoConfig.from_pretrained(self.given.base, num_labels=len(self.labels))
        if self.given.dropout is not None:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = self.given.dropout
        kind = AutoModelForTokenClassification if self.of_words else AutoModelForSequenceClassification
        model = kind.from_pretrained(self.given.base, config=config)
        if self.given.kind == "relation":
            model.resize_token_embeddings(len(self.tokenizer))
        return model

    def features(self, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[list[int]]]:
        """What the model reads of each row, and, of words, which one each token is the first of (`words_of`)."""
        limit: dict[str, Any] = {"truncation": True, "max_length": self.given.max_length}
        found, firsts = [], []
        for row in rows:
            if self.of_words:
                encoded = self.tokenizer(row["tokens"], is_split_into_words=True, **limit)
                firsts.append(words_of(encoded))
                numbers: Any = [self._number(row["tags"][i]) if i >= 0 else _LEFT_OUT for i in firsts[-1]]
            else:
                encoded, numbers = self.tokenizer(*texts_of(row), **limit), self._number(str(row["label"]))
            found.append({**encoded, "labels": numbers})
        return found, firsts

    def _number(self, label: str) -> int:
        return self.labels.index(label)

    def answers(self, rows: list[dict[str, Any]], firsts: list[list[int]], logits: np.ndarray) -> list[Any]:
        best = logits.argmax(-1)
        if not self.of_words:
            return [self.labels[number] for number in best]
        found = []
        for row, words, numbers in zip(rows, firsts, best, strict=True):
            tags = ["O"] * len(row["tokens"])
            for place, word in enumerate(words):
                if word >= 0:
                    tags[word] = self.labels[numbers[place]]
            found.append(tags)
        return found

    def measured(self, rows: list[dict[str, Any]], answers: list[Any]) -> float:
        golds = [row["tags"] if self.of_words else str(row["label"]) for row in rows]
        return float(self.metric.score(golds, answers).figures()[self.figure])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for split in ("train", "dev", "test"):
        parser.add_argument(split)
    parser.add_argument("--kind", choices=METRICS, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--dropout", type=float, help="default: the base's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    given = parser.parse_args()
    set_seed(given.seed)
    train, dev, test = read(given.train), read(given.dev), read(given.test)
    task = Task(given, train)
    (learnt, _), (of_dev, dev_firsts), (of_test, test_firsts) = map(task.features, (train, dev, test))
    judge = lambda said: {task.figure: task.measured(dev, task.answers(dev, dev_firsts, said.predictions))}
    collator = DataCollatorForTokenClassification if task.of_words else DataCollatorWithPadding

    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            num_train_epochs=given.epochs,
            per_device_train_batch_size=given.batch,
            per_device_eval_batch_size=64,
            learning_rate=given.lr,
            lr_scheduler_type="linear",
            warmup_steps=0.1,  # a share where it is below 1
            weight_decay=0.01,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model=task.figure,
            use_cpu=not torch.cuda.is_available(),
            bf16=given.bf16,
            report_to=[],
            disable_tqdm=True,
            seed=given.seed,
        )
        trainer = Trainer(
            model=task.model(),
            args=arguments,
            train_dataset=learnt,
            eval_dataset=of_dev,
            data_collator=collator(task.tokenizer),
            compute_metrics=judge,
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        trainer.compute_metrics = None
        answers = task.answers(test, test_firsts, trainer.predict(of_test).predictions)
    score = task.measured(test, answers)
    if task.of_words:
        answers = [list(entities(tags)) for tags in answers]
    num_tokens = sum(len(one["input_ids"]) for one in learnt) * given.epochs
    print(
        json.dumps(
            {
                "system": "HF Trainer",
                "seed": given.seed,
                f"test_{task.figure}": round(score, 6),
                "train_s": round(seconds, 2),
                "tokens_per_s": round(num_tokens / seconds),
                "answers": answers,
            }
        )
    )


if __name__ == "__main__":
    main()
