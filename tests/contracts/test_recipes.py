"""Every shipped recipe is a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling.core.config import read_yaml, resolved
from foundling.train.finetune_recipe import read_finetune_recipe
from foundling.train.recipe import read_recipe
from foundling.train.tune_recipe import read_tune_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_survives_its_own_dump(path: Path, tmp_path: Path) -> None:
    data = read_yaml(path)
    read: Callable[[Path], Any] = (
        read_tune_recipe if "search" in data else read_finetune_recipe if "task" in data else read_recipe
    )
    recipe = read(path)
    assert recipe.name == path.stem
    if getattr(recipe, "model", None) is not None:
        recipe.model.fields(vocab_size=1000, row_length=256)
    dumped = tmp_path / path.name
    dumped.write_text(yaml.safe_dump(resolved(recipe), allow_unicode=True), encoding="utf-8")
    assert read(dumped) == recipe
