"""Small bases, files and recipes that the tests of tasks fine-tune with."""

import json
from pathlib import Path
from typing import Any

from foundling.core.config import validate
from foundling.models.hub import save_model
from foundling.train.finetune_recipe import FinetuneRecipe
from tests.tiny import tiny_model, tiny_tokenizer

FAMILIES = ("bert", "gpt", "xlnet")
SHAPES: dict[str, dict[str, Any]] = {
    "bert": {"width": 32, "heads": 4, "max_positions": 64},
    "modernbert": {"width": 32, "heads": 4, "max_positions": 64, "math": "modern", "global_every": 2, "window": 8},
    "gpt": {"width": 32, "heads": 4, "max_positions": 64},
    "llama": {"width": 32, "heads": 4, "max_positions": 64, "qk_norm": False},
    "gpt2": {"width": 32, "heads": 4, "max_positions": 64, "math": "gpt2", "kv_heads": None},
    "prefix": {"width": 32, "heads": 4, "max_positions": 64, "prefix": True},
    "xlnet": {"width": 32, "heads": 4, "max_positions": 64},
    "seq2seq": {"width": 32, "heads": 4, "max_positions": 64},
}
"""Bases by name; a name is a family, or a family in another mathematics."""


def base_folder(folder: Path, name: str) -> Path:
    """A model folder of random weights with its tokenizer of words w6, w7, ..."""
    family = {"modernbert": "bert", "gpt2": "gpt", "llama": "gpt", "prefix": "gpt"}.get(name, name)
    changes = {"init_std": 0.2, **SHAPES[name]}
    save_model(tiny_model(family, **changes), folder / name, tokenizer=tiny_tokenizer())
    return folder / name


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(out: Path, base: Path, task: dict[str, Any], **train: Any) -> FinetuneRecipe:
    """A recipe that trains uncompiled in fp32, 30 steps of 10 rows at a high rate."""
    settings = {"length": "30 steps", "batch": "10 rows", "compile": False, "precision": "fp32", **train}
    data = {
        "name": "tiny",
        "out": str(out),
        "base": str(base),
        "task": task,
        "train": settings,
        "optimizer": {"kind": "adamw", "lr": 3e-3, "weight_decay": 0.0},
        "schedule": {"kind": "constant", "warmup": 0},
    }
    found: FinetuneRecipe = validate(FinetuneRecipe, data, "recipe")
    return found
