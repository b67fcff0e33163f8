"""Every shipped recipe is a recipe."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from foundling.core.config import read_yaml, resolved
from foundling.train.finetune_recipe import FinetuneRecipe, read_finetune_recipe
from foundling.train.recipe import Recipe, read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_survives_its_own_dump(path: Path, tmp_path: Path) -> None:
    tunes = "task" in read_yaml(path)
    read: Callable[[Path], Recipe | FinetuneRecipe] = read_finetune_recipe if tunes else read_recipe
    recipe = read(path)
    assert recipe.name == path.stem
    if recipe.model is not None:
        recipe.model.fields(vocab_size=1000, row_length=256)
    dumped = tmp_path / path.name
    dumped.write_text(yaml.safe_dump(resolved(recipe), allow_unicode=True), encoding="utf-8")
    assert read(dumped) == recipe
