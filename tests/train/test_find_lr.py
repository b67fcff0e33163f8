"""The range test: rates rise by equal factors, the loss breaks, and what is read off is where it should be."""

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundling.cli.main import main
from foundling.core.errors import UserError
from foundling.core.files import read_json, read_manifest
from foundling.train import loop
from foundling.train.find_lr import HIGHEST, LOWEST, STEPS, find_lr, rate_at, read_off
from foundling.train.incident import NotFinite
from foundling.train.pretrain import Pretraining, pretrain
from foundling.train.recipe import Recipe
from foundling.train.state import Training
from tests.tasks.small import base_folder, write_rows
from tests.train.test_finetune import ROWS

Make = Callable[..., Recipe]


def made(turn: float, end: float) -> list[tuple[float, float]]:
    """A loss that is flat up to a power of ten, falls along a cosine to another, and rises steeply."""

    def loss(power: float) -> float:
        if power < turn:
            return 5.0
        if power < end:
            return 4.0 + math.cos(math.pi * (power - turn) / (end - turn))
        return 3.0 + 20 * (power - end)

    return [(rate_at(step), loss(math.log10(rate_at(step)))) for step in range(STEPS)]


def test_the_steepest_and_the_lowest_are_found() -> None:
    steepest, lowest = read_off(made(-4.0, -1.0))
    assert math.log10(steepest) == pytest.approx(-2.5, abs=0.1), "halfway down a cosine"
    assert math.log10(lowest) == pytest.approx(-1.0, abs=0.3)


def test_rates_rise_by_equal_factors() -> None:
    assert rate_at(0) == LOWEST
    assert rate_at(STEPS - 1) == pytest.approx(HIGHEST)
    assert rate_at(8) / rate_at(7) == pytest.approx(rate_at(61) / rate_at(60))


@pytest.mark.parametrize("losses", [[], [(1e-3, 2.0)], [(rate_at(step), 2.0 + step) for step in range(50)]])
def test_a_loss_that_only_rises_is_told(losses: list[tuple[float, float]]) -> None:
    with pytest.raises(UserError, match="the loss must fall at some rate between 1e-06 and 10"):
        read_off(losses)


def test_a_recipe_is_told_a_rate_that_learns_and_nothing_else_is_left(
    tiny_data: Callable[..., dict[str, Any]],
    tiny_recipe: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rates: list[float] = []
    step = loop.training_step

    def note(training: Training) -> None:
        step(training)
        rates.append(training.metrics["lr"])

    monkeypatch.setattr(loop, "training_step", note)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_data("tiny", **{"optimizer.lr": None})), encoding="utf-8")
    assert main(["pretrain", str(path), "--find-lr"]) == 0
    folder = tmp_path / "tiny-find-lr"
    assert not (tmp_path / "tiny").exists()
    assert read_manifest(folder, "find-lr")["counts"]["steps"] == len(rates)
    with (folder / "rates.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rate"]) for row in rows] == pytest.approx(rates, rel=1e-5)
    assert rates == pytest.approx([rate_at(i) for i in range(len(rates))])
    summary = read_json(folder / "summary.json")
    assert summary["diverged"]
    assert len(rates) < STEPS
    suggested = summary["suggested"]
    assert suggested == float(f"{summary['lowest']:.2g}")
    assert f"suggested: optimizer.lr={suggested:g} (" in capsys.readouterr().err
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"optimizer.lr={suggested:g}" in page
    assert not re.findall(r'(?:src|href)="', page), "it stands alone"
    losses = [
        pretrain(tiny_recipe(f"at-{rate}", **{"optimizer.lr": rate, "train.length": "20 steps"})).summary["valid"]
        for rate in (suggested, suggested / 100, suggested * 100)
    ]
    assert losses[0]["loss"] < min(losses[1]["loss"], losses[2]["loss"])


def test_a_loss_that_is_not_finite_ends_it(tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    step = loop.training_step

    def breaks(training: Training) -> None:
        if training.step == 60:
            raise NotFinite("loss and gradient must be finite")
        step(training)

    monkeypatch.setattr(loop, "training_step", breaks)
    found = find_lr(tiny_recipe("run"), Pretraining())
    assert found is not None
    assert found.diverged
    assert len(found.losses) == 60


def test_a_fine_tuning_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = {"kind": "classification", "train": str(write_rows(tmp_path / "train.jsonl", ROWS))}
    data = {
        "base": str(base_folder(tmp_path, "bert")), "out": str(tmp_path / "tuned"), "task": task,
        "train": {"batch": "8 rows", "precision": "fp32", "compile": False, "average": {"kind": "ema"}},
    }  # fmt: skip
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert main(["finetune", str(path), "--find-lr"]) == 0
    assert "; trained weights take a tenth of that)" in capsys.readouterr().err
    summary = read_json(tmp_path / "tuned-find-lr" / "summary.json")
    assert summary["suggested"] == float(f"{summary['lowest'] / 10:.2g}")
    assert (tmp_path / "tuned-find-lr" / "report.html").exists()
    assert not (tmp_path / "tuned").exists()
    assert main(["finetune", str(path), "--find-lr", "--resume"]) == 2
    assert "--find-lr begins a short run of its own; got --resume beside it" in capsys.readouterr().err
