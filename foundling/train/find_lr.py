"""The learning-rate range test (Smith 2017, arXiv:1506.01186, section 3.3): a short training whose rate rises from far
too small to far too large, and what its loss says of the rates between.

The rates rise by equal factors from 1e-6 to 10 over 100 steps, whatever the recipe's schedule, from the recipe's own
first weights, on its first batches, with its optimizer. Two rates are read off the loss, smoothed over seven steps:

- the steepest: where the loss falls fastest by the logarithm of the rate, before its lowest point;
- the lowest point, beyond which training is about to break.

For a model that begins at initial values the lowest point is suggested as a peak rate for `optimizer.lr`: the best
rates of whole runs were 0.5 to 2 times it (docs/log.md). Weights that are trained take a tenth of it, so that what they
know is not lost. Either is a first guess, which `foundling tune` can hold against others in whole runs. Rates of their
own (of `optimizer.groups`, or of muon's AdamW) rise in proportion and are not searched; gradual unfreezing and averages
are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from foundling.core.chart import Line, Point, draw, smoothed
from foundling.core.config import resolved
from foundling.core.errors import UserError
from foundling.core.files import write_json, write_manifest, write_text
from foundling.core.log import logger
from foundling.train.callbacks.base import Callback
from foundling.train.finetune_recipe import FinetuneRecipe
from foundling.train.incident import NotFinite
from foundling.train.loop import run_loop
from foundling.train.page import REPORT_FILE, template
from foundling.train.session import Kind, enter, prepare_once
from foundling.train.state import Training

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 100
_DIVERGED = 4.0
"""A smoothed loss of so many times the lowest ends the test."""
_KEPT = 0.9
"""What the running mean that tells of divergence keeps of itself a step."""


@dataclass(frozen=True)
class LrRange:
    """What a range test found."""

    folder: Path
    losses: list[Point]
    """(rate, loss) of each step."""
    suggested: float
    """The rate to use, to two digits."""
    steepest: float
    """Where the loss falls fastest."""
    lowest: float
    """Where it is lowest."""
    trained: bool
    """Whether the weights were trained before."""
    diverged: bool
    """Whether the loss broke before the last rate."""
    is_first: bool = True
    """Whether this process is the one that writes and tells."""


class _Rising(Callback):
    """Sets the rate of each step, notes its loss, and ends the run when it breaks."""

    def __init__(self) -> None:
        self.losses: list[Point] = []
        self.diverged = False
        self._mean, self._least = 0.0, math.inf

    def on_start(self, training: Training) -> None:
        training.rests_at = STEPS
        training.schedule = lambda step: rate_at(step) / training.settings.lr

    def on_step(self, training: Training) -> None:
        loss = training.metrics["loss"]
        self.losses.append((rate_at(training.step - 1), loss))
        self._mean = _KEPT * self._mean + (1 - _KEPT) * loss
        mean = self._mean / (1 - _KEPT ** len(self.losses))
        self._least = min(self._least, mean)
        self.diverged = training.ends_early = mean > _DIVERGED * self._least


def rate_at(step: int) -> float:
    """The rate of a step, which counts from 0."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))


def find_lr(recipe: Any, kind: Kind) -> LrRange | None:
    """Runs the test for a recipe and writes NAME-find-lr beside its run folder: `rates.csv`, `summary.json` and
    `report.html`; corpus, tokenizer and tokens are made there where the recipe does not bring them. None: stopped by a
    signal. UserError: the loss falls at no rate.
    """
    folder = recipe.folder.with_name(f"{recipe.folder.name}-find-lr")
    guard = recipe.train.guard.model_copy(update={"spike": "ignore", "non_finite": "stop"})
    train = recipe.train.model_copy(update={"average": None, "guard": guard})
    recipe = recipe.model_copy(update={"out": str(folder), "train": train})
    world = enter(recipe)
    data = prepare_once(recipe, kind, folder / "data", world)
    training = kind.build(recipe, data, folder, world, None)
    logger.info("range test: %d steps of that in place of the run, with rates from %g to %g", STEPS, LOWEST, HIGHEST)
    rising = _Rising()
    try:
        run_loop(training, [rising])
    except NotFinite:
        rising.diverged = True
    if training.stop_signal is not None:
        return None
    steepest, lowest = read_off(rising.losses)
    trained = (recipe.base if isinstance(recipe, FinetuneRecipe) else recipe.model.start) is not None
    suggested = float(f"{lowest / 10 if trained else lowest:.2g}")
    found = LrRange(folder, rising.losses, suggested, steepest, lowest, trained, rising.diverged, world.is_first)
    if world.is_first:
        _write(found, recipe, data.inputs)
    return found


def read_off(losses: Sequence[Point]) -> tuple[float, float]:
    """The rate where the loss falls fastest, and that where it is lowest. losses: (rate, loss) by rising rate."""
    points = _smooth(losses)
    end = min(range(len(points)), key=lambda i: points[i][1], default=0)
    falls = [(points[i + 1][1] - points[i - 1][1], points[i][0]) for i in range(1, end)]
    if not falls or min(falls)[0] >= 0:
        raise UserError(
            f"the loss must fall at some rate between {LOWEST:g} and {HIGHEST:g}",
            got="one that only rises",
            do="look at the data (`foundling data show RECIPE.yaml`), or give larger batches",
        )
    return min(falls)[1], points[end][0]


def _smooth(losses: Sequence[Point]) -> list[Point]:
    if not losses:
        return []
    by_power = smoothed([(math.log10(rate), loss) for rate, loss in losses])
    return [(10**power, loss) for power, loss in by_power]


def _write(found: LrRange, recipe: Any, inputs: dict[str, str]) -> None:
    found.folder.mkdir(parents=True, exist_ok=True)
    smooth = _smooth(found.losses)
    rows = (
        f"{step},{rate:.6g},{loss:.6g},{mean:.6g}\n"
        for step, ((rate, loss), (_, mean)) in enumerate(zip(found.losses, smooth, strict=True), start=1)
    )
    write_text(found.folder / "rates.csv", "step,rate,loss,smoothed\n" + "".join(rows))
    figures = asdict(found)
    del figures["folder"], figures["losses"], figures["is_first"]
    write_json(found.folder / "summary.json", {**figures, "steps": len(found.losses)})
    low, high = min(loss for _, loss in smooth), max(loss for _, loss in smooth[: 1 + len(smooth) // 2])
    mark = Line([(found.suggested, low), (found.suggested, high)], f"suggested, {found.suggested:g}", "warm")
    lines = [Line(found.losses, "loss", "faint"), Line(smooth, "smoothed"), mark]
    text = template("find_lr.html.jinja").render(
        name=recipe.name,
        found=found,
        lowest_rate=LOWEST,
        highest_rate=HIGHEST,
        legend=[(line.style, line.name) for line in lines],
        plot=Markup(draw(lines, label="loss by learning rate", log=True, x_log=True, x_unit="rate")),
        rows=[(f"{rate:.2e}", f"{loss:.4f}") for rate, loss in smooth[:: max(1, len(smooth) // 25)]],
    )
    write_text(found.folder / REPORT_FILE, text)
    write_manifest(
        found.folder, "find-lr", settings={"recipe": resolved(recipe)}, inputs=inputs,
        counts={"steps": len(found.losses)}, hash_files=False,
    )  # fmt: skip
