"""What we tell users of other tools to write is what a recipe takes."""

import re
from importlib.resources import files
from typing import Any

import pytest
import yaml

from foundling.core.registry import load_part, part_names
from foundling.train.recipe import Recipe

NAMES: dict[str, str] = yaml.safe_load(files("foundling.core").joinpath("hf_names.yaml").read_text(encoding="utf-8"))
PLANNED = ("peft.",)
"""Names of parts that are designed and not built."""
PART_FOLDERS = {
    "objective": ("objectives", "mlm"),
    "optimizer": ("optim", "adamw"),
    "schedule": ("optim.schedules", "wsd"),
    "tokenizer": ("tokenizers", "bpe"),
}


def known_keys(head: str) -> set[str]:
    """Keys that may stand under a key of a recipe; those of `model.size` with their `size.`."""
    found: set[str] = set()
    if head == "task":  # of a fine-tuning's recipe
        return {key for name in part_names("tasks") for key in load_part("tasks", name).Config.model_fields}
    annotation: Any = Recipe.model_fields[head].annotation
    for inner in (annotation, *getattr(annotation, "__args__", ())):
        found |= {field.alias or name for name, field in getattr(inner, "model_fields", {}).items()}
    if head in PART_FOLDERS:
        found |= set(load_part(*PART_FOLDERS[head]).Config.model_fields)
    if head == "model":
        found |= {f"size.{name}" for name in load_part("models", "gpt").Config.model_fields}
    return found


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_answer_is_a_key_of_a_recipe(name: str) -> None:
    answer = NAMES[name]
    if answer.startswith("--"):
        return
    match = re.match(r"[a-z_.]+", answer)
    assert match, answer
    head, _, rest = match[0].partition(".")
    if answer.startswith(PLANNED):
        assert head not in Recipe.model_fields or rest not in known_keys(head), f"{answer} is built: take it out"
        return
    assert head in {*Recipe.model_fields, "task"}, answer
    assert not rest or rest in known_keys(head), answer
