"""Tokenizing speed: our token store against Hugging Face `datasets.map(batched=True)` with the same tokenizer.

    python -m benchmarks.tokenizing DATA [--tokenizer FILE] [--rounds 3] [--workers 2]

DATA: a folder with `train.jsonl` (and `bpe.json`, the tokenizer), or a JSON-lines file with a `text` on each line. The
contenders take turns, so a slow minute of the machine hits both. Ours does more in its time: it writes shards, document
index and checksums. `datasets.map` is measured both ways it can use the processors: the tokenizer's own threads
(num_proc None), and processes; the faster one counts. Prints one line of JSON with medians in MB/s of UTF-8.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from foundling.data.store import build_store
from foundling.tokenizers.base import SpecialTokens, Tokenizer

_PEER = """
import json, os, sys, time
path, tokenizer_file, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false" if workers else "true"
from datasets import Dataset, disable_caching, disable_progress_bars
from transformers import PreTrainedTokenizerFast
disable_caching()
disable_progress_bars()
texts = [json.loads(line)["text"] for line in open(path, encoding="utf-8")]
tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_file)
data = Dataset.from_dict({"text": texts})
start = time.perf_counter()
done = data.map(lambda batch: tokenizer(batch["text"]), batched=True, num_proc=workers or None, remove_columns=["text"])
seconds = time.perf_counter() - start
import pyarrow.compute as compute
print(json.dumps([seconds, compute.sum(compute.list_value_length(done.data["input_ids"])).as_py()]))
"""


@dataclass(frozen=True)
class _Document:
    text: str
    source: str = "all"


class _Corpus:
    """Texts in memory, as `datasets` has them: reading is not part of the contest."""

    key = "benchmark"

    def __init__(self, path: Path) -> None:
        with path.open(encoding="utf-8") as lines:
            self.texts = [json.loads(line)["text"] for line in lines]

    def documents(self, split: str) -> Iterator[_Document]:
        return (_Document(text) for text in self.texts) if split == "train" else iter(())


def _ours(corpus: _Corpus, tokenizer: Tokenizer, workers: int) -> tuple[float, int]:
    """(seconds, tokens without end tokens)."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = build_store(corpus, tokenizer, Path(folder) / "store", workers=workers, end_id=None)
        return time.perf_counter() - start, store.split("train").num_tokens


def _theirs(path: Path, tokenizer_file: Path, workers: int) -> tuple[float, int]:
    """(seconds, tokens) of `datasets.map` in a process of its own; workers 0: the tokenizer's threads."""
    command = [sys.executable, "-c", _PEER, str(path), str(tokenizer_file), str(workers)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True, env=dict(os.environ))
    seconds, num_tokens = json.loads(answer.stdout.splitlines()[-1])
    return seconds, num_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=None, help="a tokenizer.json; default: bpe.json in DATA")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    path = arguments.data / "train.jsonl" if arguments.data.is_dir() else arguments.data
    tokenizer_file = arguments.tokenizer or path.parent / "bpe.json"
    raw = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    tokenizer = Tokenizer(raw, SpecialTokens(), kind="benchmark")
    corpus = _Corpus(path)
    megabytes = sum(len(text.encode()) for text in corpus.texts) / 1e6
    speeds: dict[str, list[float]] = {"foundling": [], "datasets_threads": [], "datasets_processes": []}
    for _ in range(arguments.rounds):
        counts = {}
        for name, (seconds, num_tokens) in (
            ("foundling", _ours(corpus, tokenizer, arguments.workers)),
            ("datasets_threads", _theirs(path, tokenizer_file, 0)),
            ("datasets_processes", _theirs(path, tokenizer_file, arguments.workers)),
        ):
            speeds[name].append(megabytes / seconds)
            counts[name] = num_tokens
        if len(set(counts.values())) != 1:
            sys.exit(f"the contenders must give the same number of tokens; got {counts}")
    medians = {name: round(statistics.median(values), 2) for name, values in speeds.items()}
    best_peer = max(medians["datasets_threads"], medians["datasets_processes"])
    print(
        json.dumps(
            {
                "benchmark": "tokenize",
                "megabytes": round(megabytes, 1),
                "workers": arguments.workers,
                "rounds": arguments.rounds,
                "median_megabytes_per_second": medians,
                "times_best_peer": round(medians["foundling"] / best_peer, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
