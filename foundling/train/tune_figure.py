"""Which figure trials are judged by, and which of its ends is the better: known before any trial."""

from typing import Any

from foundling.core.errors import UserError
from foundling.evaluation.judge import chosen_figure, judge
from foundling.train.callbacks.evaluate import Evaluate
from foundling.train.callbacks.judge import Judge, answering_model
from foundling.train.finetune import Finetuning
from foundling.train.finetune_recipe import FinetuneRecipe
from foundling.train.pretrain import Pretraining
from foundling.train.recipe import Recipe
from foundling.train.session import enter, prepare_once
from foundling.train.tune_recipe import TuneRecipe
from foundling.train.tune_report import Figure

_FIRST_LOOK = 4
"""Dev examples that tell which figures there are."""


def figure_of(recipe: TuneRecipe, given: Recipe | FinetuneRecipe) -> Figure:
    """What trials are judged by, asked of the recipe as it is, untrained: a wrong name costs no trial."""
    if isinstance(given, Recipe):
        known = _figures_on_valid(recipe, given)
        name = recipe.metric or ("bits_per_byte" if "bits_per_byte" in known else "loss")
    else:
        name, known = _figures_on_dev(recipe, given)
    better, said = chosen_figure(known, name), recipe.higher_is_better  # type: ignore[arg-type]
    if better is None and said is None:
        raise UserError(
            f"of metric {name} it must be told which end is better", do="add higher_is_better=true or =false"
        )
    if better is not None and said not in (None, better):
        raise UserError(
            f"of {name} the {'larger' if better else 'smaller'} is the better",
            got=f"higher_is_better {str(said).lower()}",
            do="take it out",
        )
    return Figure(name, bool(said if better is None else better))


def _untrained(recipe: TuneRecipe, given: Any, kind: Any) -> Any:
    """The live objects of a run at its first step, uncompiled."""
    given = given.model_copy(update={"train": given.train.model_copy(update={"compile": False})})
    data = prepare_once(given, kind, recipe.folder / "data", world := enter(given))
    return kind.build(given, data, given.folder, world, None)


def _figures_on_valid(recipe: TuneRecipe, given: Recipe) -> dict[str, bool | None]:
    """Figures of a pretraining's validation -> whether the higher is the better; None: not known."""
    one_row = given.model_copy(update={"evaluate": given.evaluate.model_copy(update={"tokens": 1})})
    training = _untrained(recipe, one_row, Pretraining())
    Evaluate(training).on_start(training)
    names = [name.removeprefix("valid/") for name in training.metrics if name.startswith("valid/")]
    return {name: _better_of(name) for name in names if name not in ("tokens", "row_length")}


def _better_of(name: str) -> bool | None:
    if name in ("loss", "perplexity", "bits_per_byte") or name.startswith("loss/") or name.endswith("_loss"):
        return False
    return True if name.endswith("accuracy") or name == "above_noise" else None


def _figures_on_dev(recipe: TuneRecipe, given: FinetuneRecipe) -> tuple[str, dict[str, bool | None]]:
    """The chosen figure's name, and each figure of dev -> whether the higher is the better, as its metric has it."""
    kind = Finetuning()
    training = _untrained(recipe, given, kind)
    name = recipe.metric or next(one.metric for one in kind.callbacks(training, {}) if isinstance(one, Judge))
    task, model = training.data.task, answering_model(training)

    def better(limit: int | None) -> dict[str, bool | None]:
        examples = training.data.examples["dev"][:limit]
        return dict(judge(task.measured(examples, task.answers(model, examples))).higher_is_better)

    try:
        found = better(_FIRST_LOOK)
    except UserError:  # so few may lack the label that a figure is of
        found = {}
    return name, found if name in found else better(given.evaluate.examples)
