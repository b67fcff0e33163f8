"""What the throughput benchmark trains: models and data by name, as runs of the real engine.

A peer takes the same rows from here (`data_of`). What the engine alone needs is imported where it is used, so that a
peer has neither its memory nor, in an environment of its own, its dependencies.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
import torch

from foundling.core.registry import load_part
from foundling.data.rows import Samples
from foundling.tokenizers.base import SpecialTokens, Tokenizer

if TYPE_CHECKING:
    from foundling.train.state import Training


@dataclass(frozen=True)
class Workload:
    family: str
    """Of the model; `benchmarks/parity/` has a gate of this name."""
    size: dict[str, Any]
    objective: dict[str, Any]
    row_length: int
    rows: int
    """Rows of a step."""
    tokens: str
    """DATA/NAME.bin (uint16 ids), NAME.json (the tokenizer) and NAME_starts.npy (starts of documents, then the end)."""
    special: dict[Any, str] = field(default_factory=dict)
    vocab_size: int | None = None
    """Of the model, where it is to be larger than the tokenizer's: what is more is computed and never read."""


_BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_PAIRS = {"kind": "mlm", "next": {"kind": "nsp", "short_rate": 1.0, "shortest": 16}}
"""Pairs of segments, rows of 16 tokens to full ones, all lengths alike: 56 % of what they would hold padded."""

WORKLOADS = {
    "gpt": Workload("gpt", {"layers": 6, "width": 384, "heads": 6, "math": "gpt2"}, {"kind": "causal"}, 256, 32, "bpe"),
    "gpt124": Workload(
        "gpt",
        {"layers": 12, "width": 768, "heads": 12, "math": "gpt2"},
        {"kind": "causal"},
        1024,
        32,
        "bpe",
        vocab_size=50_257,
    ),
    "gpt-1b": Workload(
        "gpt", {"layers": 24, "width": 2048, "heads": 16, "math": "gpt2"}, {"kind": "causal"}, 1024, 16, "bpe"
    ),
    "bert": Workload("bert", {"layers": 4, "width": 256, "heads": 4}, _PAIRS, 128, 64, "wp", _BERT_TOKENS),
    "bert-small": Workload("bert", {"layers": 4, "width": 512, "heads": 8}, _PAIRS, 128, 64, "wp", _BERT_TOKENS),
    "bert-base": Workload("bert", {"layers": 12, "width": 768, "heads": 12}, _PAIRS, 128, 256, "wp", _BERT_TOKENS),
    "xlnet": Workload("xlnet", {"layers": 6, "width": 256, "heads": 4}, {"kind": "permutation"}, 128, 32, "bpe"),
    "xlnet-base": Workload("xlnet", {"layers": 12, "width": 768, "heads": 12}, {"kind": "permutation"}, 512, 32, "bpe"),
}
"""With vocabularies of 8,192, gpt124 with GPT-2's own; gpt124 and those of base size and more are for a GPU."""

SEED = 0
"""Of the order of the rows."""


class _File:
    """Token ids in a file, as a stream that knows its documents."""

    def __init__(self, data_dir: Path, name: str) -> None:
        self._ids = np.asarray(np.memmap(data_dir / f"{name}.bin", dtype=np.uint16, mode="r"))
        starts = np.load(data_dir / f"{name}_starts.npy")
        self.num_tokens, self.num_documents = len(self._ids), len(starts) - 1
        self.document_starts, self.document_lengths = starts[:-1], np.diff(starts)

    def read(self, start: int, length: int) -> np.ndarray:
        return self._ids[start : start + length].astype(np.int64)


CONSTANT = {
    "optimizer": {"kind": "adamw", "lr": 1e-3, "groups": [{"match": "embedding.weight", "lr": 1e-3}]},
    "schedule": {"kind": "constant", "warmup": 0},
}
"""What a throughput run trains by: one rate for all, as its peers do."""


def training_of(
    data_dir: Path,
    name: str,
    precision: str,
    compiled: bool,
    micro_batch: int,
    *,
    method: dict[str, Any] = CONSTANT,
    lr: float = 1e-3,
    steps: int = 10**6,
    size: dict[str, Any] | None = None,
    rows: int | None = None,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
) -> "Training":
    """A run over the memory-mapped tokens, at its first step: the loop's own, nothing made for the benchmark.

    method: optimizer and schedule. lr: the peak rate of its schedule, which is for so many steps. size, rows: instead
    of the workload's. device: what it is trained on.
    """
    from foundling.data.mixture import Mixture
    from foundling.parallel.world import World
    from foundling.train.build import build
    from foundling.train.prepare import Data
    from foundling.train.recipe import recipe_from
    from foundling.train.settings import Settings

    work = WORKLOADS[name]
    tokenizer = tokenizer_of(data_dir, name)
    stream: Any = _File(data_dir, work.tokens)
    data = Data([], ["bench"], Mixture(), tokenizer, data_dir, [stream], [stream], ["bench"], {})
    recipe = recipe_from(
        {
            "name": "bench",
            "corpus": {"train": "none"},
            "tokenizer": {"path": "none"},
            "model": {"family": work.family, "size": size or work.size},
            "objective": work.objective,
            "seed": SEED,
            **method,
        }
    )
    settings = Settings(work.row_length, rows or work.rows, micro_batch, steps, lr, precision, compiled)
    return build(recipe, data, Path("none"), World(0, 1, device, None), settings)


def settings_of(training: "Training") -> dict[str, Any]:
    """What a run trains by, for its line of JSON."""
    recipe: Any = training.recipe
    parts = {name: getattr(recipe, name).model_dump(mode="json") for name in ("objective", "optimizer", "schedule")}
    return {**training.settings.as_json(), "model": training.model.config.model_dump(mode="json"), **parts}


def data_of(data_dir: Path, name: str) -> tuple[Any, Samples]:
    """A workload's objective and the order of its rows: the first `rows` are those of the first step, and so on."""
    work = WORKLOADS[name]
    config: Any = load_part("objectives", work.objective["kind"]).Config(**work.objective)
    objective = config.build(tokenizer_of(data_dir, name))
    stream = _File(data_dir, work.tokens)
    return objective, objective.samples([stream], None, row_length=work.row_length, seed=SEED)


def tokenizer_of(data_dir: Path, name: str) -> Tokenizer:
    """The tokenizer whose ids a workload reads, with names for those that only its model has."""
    work = WORKLOADS[name]
    raw = tokenizers.Tokenizer.from_file(str(data_dir / f"{work.tokens}.json"))
    raw.add_tokens([f"<unread{number}>" for number in range(raw.get_vocab_size(), work.vocab_size or 0)])
    special: dict[Any, str] = work.special or {"eos": str(raw.id_to_token(0))}  # what lies between documents
    return Tokenizer(raw, SpecialTokens(special), kind="wordpiece" if work.tokens == "wp" else "bpe")
