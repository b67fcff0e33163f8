"""Small things that many tests train with: text, tokens and models that the tests make themselves."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch

from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.tokenizers.base import Role, SpecialTokens, Tokenizer

_TEXT = (
    "the old sailor carried seven wooden boxes over a narrow bridge while children counted every silent step "
    "and nobody in that quiet town could say why morning always came before anyone had slept enough"
)
ENGLISH = _TEXT.split(" ")
CHINESE = "春眠不觉晓处闻啼鸟夜来风雨声花落知多少床前明月光疑是地上霜举头望低思故乡"


def sentences(number: int, seed: int = 0) -> list[str]:
    """Documents of a few sentences of pseudo-English, one in five Chinese; the same for the same seed."""
    rng = random.Random(seed)
    found = []
    for i in range(number):
        if i % 5 == 4:
            found.append("，".join("".join(rng.choices(CHINESE, k=rng.randint(4, 9))) for _ in range(8)) + "。")
        else:
            lines = (" ".join(rng.choices(ENGLISH, k=rng.randint(6, 12))).capitalize() for _ in range(5))
            found.append(". ".join(lines) + ".")
    return found


def write_texts(folder: Path, number: int = 120, seed: int = 0) -> Path:
    """A folder of text files, a document each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(sentences(number, seed)):
        (folder / f"{i:04d}.txt").write_text(text + "\n", encoding="utf-8")
    return folder


class ArrayStream:
    """A token stream in memory."""

    def __init__(self, tokens: np.ndarray | int, documents: int = 1) -> None:
        """documents: into how many of equal length the tokens fall, each ended by its last token."""
        self.tokens = np.arange(tokens) if isinstance(tokens, int) else tokens
        assert len(self.tokens) % documents == 0
        each = len(self.tokens) // documents
        self.num_documents = documents
        self.document_starts = np.arange(documents) * each
        self.document_lengths = np.full(documents, each)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def read(self, start: int, length: int) -> np.ndarray:
        assert 0 <= start <= start + length <= len(self.tokens)
        return self.tokens[start : start + length].astype(np.int64)


def recipe_data(corpus: Path, tokenizer: Path, out: Path, /, **changes: Any) -> dict[str, Any]:
    """A recipe, as plain data, that trains uncompiled in fp32 for 8 steps of 8 rows of 32 tokens; dotted changes."""
    data: dict[str, Any] = {
        "name": "tiny",
        "out": str(out),
        "corpus": {"train": str(corpus)},
        "tokenizer": {"path": str(tokenizer)},
        "model": {
            "family": "gpt",
            "size": {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "mlp_width": 64, "init_std": 0.02},
        },
        "optimizer": {"kind": "adamw", "lr": 3e-3},
        "train": {
            "length": "8 steps", "sequence_length": 32, "batch": "8 rows", "micro_batch": 4,
            "precision": "fp32", "compile": False, "log_every": 2,
        },
        "evaluate": {"every": "4 steps", "tokens": 2000},
        "checkpoint": {"every": "4 steps", "keep": 3},
    }  # fmt: skip
    for path, value in changes.items():
        node = data
        *above, last = path.split(".")
        for step in above:
            node = node.setdefault(step, {})
        node[last] = value
    return data


SPECIAL: dict[Role, str] = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
    "eos": "[EOS]",
}
END = list(SPECIAL).index("eos")
"""The id of the end token of `tiny_tokenizer`."""
FIRST_ORDINARY = len(SPECIAL)
"""Its first id that is no special token."""


def tiny_tokenizer(vocab_size: int = 50) -> Tokenizer:
    """Special tokens first, then `w6`, `w7`, ... as words."""
    names = [*SPECIAL.values(), *(f"w{i}" for i in range(FIRST_ORDINARY, vocab_size))]
    model = tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=SPECIAL["unk"])
    raw = tokenizers.Tokenizer(model)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens(list(SPECIAL.values()))
    return Tokenizer(raw, SpecialTokens(dict(SPECIAL)), kind="wordlevel")


TINY_SHAPES: dict[str, dict[str, Any]] = {
    "gpt": {
        "layers": 2,
        "width": 16,
        "heads": 4,
        "kv_heads": 2,
        "mlp_width": 24,
        "max_positions": 16,
        "init_std": 0.02,
    },
    "bert": {"layers": 2, "width": 16, "heads": 2, "mlp_width": 24, "max_positions": 16},
    "seq2seq": {
        "layers": 2,
        "width": 16,
        "heads": 4,
        "kv_heads": 2,
        "mlp_width": 24,
        "max_positions": 16,
        "init_std": 0.02,
    },
    "word2vec": {"width": 16, "max_positions": 16},
    "xlnet": {"layers": 2, "width": 16, "heads": 4, "mlp_width": 24, "max_positions": 16},
}
"""A shape for each family, smaller than any that is good for something."""


def tiny_model(family: str, vocab_size: int = 50, **changes: Any) -> Any:
    """A model of a family with initial weights, always the same."""
    config = load_part("models", family).Config.model_validate(
        {"vocab_size": vocab_size, **TINY_SHAPES[family], **changes}
    )
    model = config.build()
    model.initialize(torch.Generator().manual_seed(0))
    return model


def tiny_batch(family: str, num_rows: int = 6, vocab_size: int = 50) -> tuple[Any, Batch]:
    """The objective that a family is trained by, and a batch of its rows of random tokens."""
    kind = load_part("models", family).Config.objectives[0]
    objective = load_part("objectives", kind).Config(kind=kind).build(tiny_tokenizer(vocab_size))
    tokens = np.random.default_rng(0).integers(FIRST_ORDINARY, vocab_size, 600)
    tokens[49::50] = END  # documents of 50 tokens
    samples = objective.samples([ArrayStream(tokens, documents=12)], None, row_length=12, seed=0)
    return objective, objective.collate([samples[i] for i in range(num_rows)])
