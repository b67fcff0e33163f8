"""Fine-tuning beside a peer, taking turns: quality on test and the seconds that it took.

    python -m benchmarks.finetuning TASKS --base FOLDER [--task sst2 ...] [--rounds 1] [--peer NAME="COMMAND" ...]

TASKS holds a folder for each task (`sst2/train.jsonl`, `dev.jsonl`, `test.jsonl`). A task is a recipe in
benchmarks/recipes: classification (sst2, trec-qc, ag-news, rte, chnsenticorp-hotel), names (wnut17), relations
(semeval2010-task8), answers (xquad-en, xquad-zh), and, from initial weights, translation (multi30k-en-de) and summaries
(dialogsum, or from the decoder or encoder-decoder of --writer). All sides train what it says, most of them 3 epochs of
32 examples at 5e-5, linear with 10 % warm-up, weight decay 0.01; --epochs, --batch and --lr say otherwise to all of
them. The epoch that was best on dev is kept. Each run is a fresh process, and a round is a seed.

--variant NAME="KEY=VALUE ..." is ours once more with other settings, and is compared like a peer:

    python -m benchmarks.finetuning TASKS --base FOLDER --task wnut17 --variant crf="task.crf=true"

A peer is a command that prints one line of JSON with `test_FIGURE` (the task's figure, such as test_accuracy; share or
BLEU) and `train_s` (evaluation on dev after each epoch included); `{train}`, `{dev}` and `{test}` in it are filled in,
and `{settings}`, what benchmarks/peers/hf_finetuning.py takes (kind of task, base, epochs, batch, rate, length, seed):

    ... --peer hf="python -m benchmarks.peers.hf_finetuning {train} {dev} {test} {settings}"

Where the line has `answers` too (of the test examples in order, as our metrics take them), figures come with a
bootstrap interval, and each contender is compared with ours on the same examples by a paired bootstrap. One JSON line a
run and a comparison goes to standard output, tables to standard error.
"""

import argparse
import gzip
import json
import shlex
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks._compare import child, interval, machine

RECIPES = Path(__file__).parent / "recipes"
TASKS = sorted(path.stem for path in RECIPES.glob("*.yaml"))
SPLITS = ("train", "dev", "test")
SHOWN_TO = 1e-4
"""How far a contender's figure may lie from that of its answers."""
_NOT_SHOWN = ("answers", "golds", "metric", "metric_settings")


def run_ours(recipe: dict[str, Any]) -> dict[str, Any]:
    """Our run in this process."""
    from foundling.tasks.folder import load_task
    from foundling.train.finetune import finetune
    from foundling.train.finetune_recipe import FinetuneRecipe

    with tempfile.TemporaryDirectory() as out:
        checked = FinetuneRecipe.model_validate({**recipe, "out": out + "/run"})
        run = finetune(checked)
        summary = run.summary
        task, _ = load_task(run.model_dir)
        examples = task.config.read(task.config.test)
        lines = (run.folder / "answers-test.jsonl").read_text(encoding="utf-8").splitlines()
        main = task.measured(examples, [json.loads(line)["answer"] for line in lines])[0]
    test, figure = summary["test"], task.config.metric
    names = [name for name, x in test.items() if isinstance(x, float) and "/" not in name]
    return {
        "system": "foundling",
        "task": recipe["name"],
        "seed": checked.seed,
        "figure": figure,
        f"test_{figure}": test[figure],
        "train_s": summary["wall_seconds"],
        "train_s_without_dev": summary["seconds"],
        "tokens_per_s": round(summary["tokens"] / summary["wall_seconds"]),
        "steps": summary["steps"],
        "best_step": summary["best_step"],
        "settings": summary["settings"],
        "all": {name: [test[name], *test["intervals"][name]] for name in names},
        "metric": main.metric,
        "metric_settings": dict(main.settings),
        "golds": main.golds,
        "answers": main.answers,
    }


def recipe_of(task: str, files: dict[str, str], given: argparse.Namespace) -> dict[str, Any]:
    """A task's recipe with its files and what the command line says."""
    from foundling.core.config import override, read_yaml

    data = read_yaml(RECIPES / f"{task}.yaml")
    data["task"] |= files
    if "model" not in data:
        data["base"] = given.base
    elif given.writer and data["task"]["kind"] == "summarization":
        del data["model"], data["tokenizer"]
        data["base"] = given.writer
    said = {
        "train.length": given.epochs and f"{given.epochs} epochs",
        "train.batch": given.batch and f"{given.batch} examples",
        "train.dropout": given.dropout,
        "optimizer.lr": given.lr,
    }
    return override(data, [f"{key}={value}" for key, value in said.items() if value is not None] + given.set)


def settings_of(recipe: dict[str, Any], seed: int) -> str:
    """The same for a peer, as options of a command."""
    from foundling.train.finetune_recipe import FinetuneRecipe

    checked = FinetuneRecipe.model_validate(recipe)
    task: Any = checked.task
    options = {
        "kind": task.kind,
        "base": checked.base or "",
        "epochs": f"{checked.train.length.value:g}",
        "batch": f"{checked.train.batch.value:g}",
        "lr": f"{checked.optimizer.lr:g}",  # type: ignore[attr-defined]
        "max-length": str(task.max_length),
        "seed": str(seed),
    }
    if checked.train.dropout is not None:
        options["dropout"] = f"{checked.train.dropout:g}"
    return shlex.join(word for name, value in options.items() for word in (f"--{name}", value))


def files_of(recipe_files: dict[str, str], tasks: Path, out: Path, limits: dict[str, int | None]) -> dict[str, str]:
    """The path of each split, of a shortened copy where there is a limit."""
    found = {}
    for split, name in recipe_files.items():
        path, limit = tasks / name, limits[split]
        found[split] = str(path) if limit is None else str(_shortened(path, out, limit))
    return found


def _shortened(path: Path, out: Path, number: int) -> Path:
    """The first examples of a file, and the first of each label."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    target = out / path.name.removesuffix(".gz")
    if target.suffix == ".json":
        target.write_text(json.dumps(_some_questions(json.loads(text), number)), encoding="utf-8")
        return target
    lines, known, first, rest = text.splitlines(keepends=True), set[str](), list[int](), list[int]()
    for place, line in enumerate(lines):
        row = json.loads(line)
        labels = {str(row["label"])} if "label" in row else set(row.get("tags", ()))
        (rest if labels <= known else first).append(place)
        known |= labels
    chosen = sorted([*first, *rest][: max(number, len(first))])
    target.write_text("".join(lines[place] for place in chosen), encoding="utf-8")
    return target


def _some_questions(data: dict[str, Any], number: int) -> dict[str, Any]:
    """SQuAD's JSON with so many of its questions."""
    articles = []
    for article in data["data"]:
        paragraphs = []
        for paragraph in article["paragraphs"]:
            paragraphs.append({**paragraph, "qas": paragraph["qas"][: max(0, number)]})
            number -= len(paragraph["qas"])
        articles.append({**article, "paragraphs": [one for one in paragraphs if one["qas"]]})
    return {**data, "data": [article for article in articles if article["paragraphs"]]}


def measure(task: str, given: argparse.Namespace, work: Path) -> tuple[list[str], list[str]]:
    """Runs all contenders of one task, prints their lines and returns the rows of both tables."""
    from foundling.core.config import override, read_yaml

    limits = {"train": given.examples, "dev": given.heldout, "test": given.heldout}
    names = {split: read_yaml(RECIPES / f"{task}.yaml")["task"][split] for split in SPLITS}
    (work / task).mkdir()
    files = files_of(names, given.tasks, work / task, limits)
    recipe = recipe_of(task, files, given)
    recipes = {"foundling": recipe}
    for variant in given.variant:
        name, _, settings = variant.partition("=")
        recipes[f"foundling, {name}"] = override(recipe, shlex.split(settings))
    peers = dict(peer.split("=", 1) for peer in given.peer)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*recipes, *peers)}
    for seed in range(given.rounds):
        for name, its in recipes.items():
            path = work / "recipe.json"
            path.write_text(json.dumps({**its, "seed": seed}), encoding="utf-8")
            runs[name].append(child([sys.executable, "-m", "benchmarks.finetuning", str(path), "--only"]))
            _print_run(name, runs[name][-1])
        for name, command in peers.items():
            filled = command.format(**{split: shlex.quote(path) for split, path in files.items()},
                                    settings=settings_of(recipe, seed))  # fmt: skip
            runs[name].append(child(shlex.split(filled)))
            _print_run(name, runs[name][-1])
    return _tables(task, runs)


def _print_run(name: str, run: dict[str, Any]) -> None:
    shown = {k: v for k, v in run.items() if k not in _NOT_SHOWN}
    print(json.dumps({"name": name, **shown, "machine": machine()}), flush=True)


def _tables(task: str, runs: dict[str, list[dict[str, Any]]]) -> tuple[list[str], list[str]]:
    from foundling.core.registry import load_part
    from foundling.evaluation.judge import FOLDER
    from foundling.evaluation.significance import compare, intervals

    ours = runs["foundling"]
    figure, golds = ours[0]["figure"], ours[0]["golds"]
    config = load_part(FOLDER, ours[0]["metric"]).Config
    metric = config(kind=ours[0]["metric"], **ours[0]["metric_settings"]).build()
    shown = lambda x: f"{x:.2f}" if figure in ("bleu", "chrf") else f"{x:.4f}"
    rows, compared = [], []
    for name, found in runs.items():
        scored = [metric.score(golds, run["answers"]) if "answers" in run else None for run in found]
        for run, its in zip(found, scored, strict=True):
            if its is not None and abs(its.figures()[figure] - run[f"test_{figure}"]) > SHOWN_TO:
                raise SystemExit(
                    f"{name}: its answers are worth {its.figures()[figure]}, and it says {run[f'test_{figure}']}"
                )
        low, high = intervals(scored[0])[figure] if scored[0] else (float("nan"), float("nan"))
        sure = f"{shown(low)} - {shown(high)}" if scored[0] else ""
        ratios = [its["train_s"] / mine["train_s"] for its, mine in zip(found, ours, strict=True)]
        ends = interval(ratios)
        rate = statistics.median(run.get("tokens_per_s", float("nan")) for run in found)
        rows.append(
            f"| {task} | {name} | {figure} | {shown(statistics.mean(run[f'test_{figure}'] for run in found))} | {sure} "
            f"| {statistics.median(run['train_s'] for run in found):.0f} | {rate:,.0f} "
            + (
                f"| {statistics.median(ratios):.2f} | {ends[0]:.2f} - {ends[1]:.2f} |"
                if name != "foundling"
                else "| | |"
            )
        )
        for seed, its in enumerate(scored):
            if name == "foundling" or its is None:
                continue
            d = compare(metric.score(golds, ours[seed]["answers"]), its)[figure]
            print(json.dumps({"task": task, "seed": seed, "against": name, "figure": figure, **asdict(d)}), flush=True)
            compared.append(
                f"| {task} | {seed} | {name} | {figure} | {shown(d.a)} | {shown(d.b)} | {shown(d.difference)} "
                f"| {shown(d.low)} to {shown(d.high)} | {d.p:.3f} | {d.verdict} |"
            )
    return rows, compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--base", help="what is fine-tuned: a run, a model folder or a Hugging Face folder")
    parser.add_argument(
        "--writer", metavar="FOLDER", help="what dialogsum is fine-tuned from; default: initial weights"
    )
    parser.add_argument("--task", action="append", default=[], choices=TASKS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="of all sides, instead of the recipe's")
    parser.add_argument("--batch", type=int, help="of all sides: examples of a step")
    parser.add_argument("--lr", type=float, help="of all sides: the peak rate")
    parser.add_argument("--dropout", type=float, help="of all sides; default: none in ours, a peer's own in a peer")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of ours: a key of the recipe")
    parser.add_argument("--variant", action="append", default=[], metavar='NAME="KEY=VALUE ..."')
    parser.add_argument("--peer", action="append", default=[], metavar='NAME="COMMAND"')
    parser.add_argument(
        "--examples",
        type=int,
        metavar="N",
        help="train on the first N examples only; from initial weights, few fill a small vocabulary "
        "(--set tokenizer.vocab_size=500)",
    )
    parser.add_argument(
        "--heldout", type=int, metavar="N", help="measure on the first N of dev and test, to try it out"
    )
    parser.add_argument("--only", action="store_true", help="run ours once in this process; TASKS is the recipe's file")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(run_ours(json.loads(given.tasks.read_text(encoding="utf-8")))))
        return
    rows: list[str] = []
    compared: list[str] = []
    for task in given.task or ["sst2", "trec-qc"]:
        with tempfile.TemporaryDirectory() as work:
            found = measure(task, given, Path(work))
        rows += found[0]
        compared += found[1]
    print("\n| task | system | figure | on test | 95 % | seconds | tokens/s | it / ours | 95 % |", file=sys.stderr)
    print("\n".join(["|---|---|---|---|---|---|---|---|---|", *rows]), file=sys.stderr)
    if compared:
        print("\n| task | seed | it | figure | ours | its | its - ours | 95 % | p | it is |", file=sys.stderr)
        print("\n".join(["|---|---|---|---|---|---|---|---|---|---|", *compared]), file=sys.stderr)


if __name__ == "__main__":
    main()
