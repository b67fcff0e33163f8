"""The whole road in about five minutes: raw text to a language model that writes.

The text is the documentation and the source of the Python that runs this (or a folder of your own): it is cleaned,
tokenized, learnt and scored on documents that were held back, beside gzip and xz. Everything lands in runs/demo.
A demo that was stopped goes on where it was; a finished one tells its figures again.

Example: foundling demo --text ~/my-texts --out runs/mine
"""

import os
import shlex
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated, Any

import typer
import yaml
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from foundling.core.errors import UserError
from foundling.core.files import MANIFEST, holds, read_json, whole_folder, write_json, write_manifest
from foundling.core.log import console, logger
from foundling.core.units import human

_LEFT_OUT = {"test", "tests", "idle_test", "lib2to3", "idlelib", "turtledemo", "encodings", "pydoc_data", "ensurepip"}
"""Modules that are tables, tests or tools: they teach a model little."""
_PROMPTS = ("def read_lines(path):\n", "The following functions are provided:\n\n")
_PROMPT_CHARACTERS = 40
_MAY_DIFFER = ("name", "out", "corpus.train", "train.length", "train.precision")
"""Keys of a demo's recipe that depend on where it runs and on which text."""
_RECIPE: dict[str, Any] = yaml.safe_load(files("foundling.cli").joinpath("demo.yaml").read_text(encoding="utf-8"))
_TOKENS_OF_TWO_CORES = {"bf16": 3_300_000, "fp32, AVX512": 2_400_000, "fp32": 1_050_000}
"""Training tokens that two slow cores manage within four minutes, five with all the rest: by what they compute with,
not by the clock, so that one machine always makes the same model."""


def demo(
    text: Annotated[Path | None, typer.Option(help="A folder of your own text instead.", metavar="DIR")] = None,
    out: Annotated[Path, typer.Option(help="The run folder.", metavar="DIR")] = Path("runs/demo"),
) -> None:
    started = time.perf_counter()
    if text is not None and not text.exists():
        raise UserError("--text must be a folder or file that exists", got=str(text))
    console.print("[bold]foundling demo[/]: raw text to a language model that writes\n")
    finished = _train(text, out)
    if not finished:
        _score(out, _PROMPTS if text is None else None)
    _tell(out, time.perf_counter() - started)


def _python_text(folder: Path) -> Path:
    """The running Python's documentation topics and library source, copied to `folder`/python once."""
    library = Path(sysconfig.get_path("stdlib"))
    version = ".".join(map(str, sys.version_info[:3]))
    settings = {"python": version, "left_out": sorted(_LEFT_OUT)}
    manifest = folder / "manifest.json"
    if (folder / "python").is_dir() and read_json(manifest).get("settings") == settings:
        return folder / "python"
    if folder.exists() and not holds(folder, "text"):
        raise UserError(
            f"{folder} must be free, or what a demo copied",
            got="something else, which stays as it is",
            do="choose another --out",
        )
    with whole_folder(folder) as temporary:
        (temporary / "python" / "documentation").mkdir(parents=True)
        for name, page in sorted(topics.items()):
            (temporary / "python" / "documentation" / f"{name.replace('/', '-')}.rst").write_text(
                page, encoding="utf-8"
            )
        for path in sorted(library.rglob("*.py")):
            place = path.relative_to(library)
            if place.parts[0].removesuffix(".py") in sys.stdlib_module_names and not _LEFT_OUT & set(place.parts):
                target = temporary / "python" / "library" / place
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        write_manifest(temporary, "text", settings=settings, inputs={}, counts={}, hash_files=False)
    return folder / "python"


def _train(text: Path | None, out: Path) -> bool:
    """Trains, goes on with a stopped training, or finds it finished (True)."""
    import torch

    from foundling.core.config import differences, resolved
    from foundling.train.machine import choose_precision, device_here
    from foundling.train.pretrain import pretrain, start_over
    from foundling.train.recipe import recipe_from
    from foundling.train.session import is_finished
    from foundling.train.state import checkpoints

    source = text or out / "text" / "python"
    with _stage("machine") as said:
        precision = choose_precision("auto", device_here())
        threads = torch.get_num_threads()
        said.append(f"{threads} cores, {precision.name}, {precision.flops_per_second / 1e12:.2f} TFLOP/s")
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in _RECIPE.items()}
    num_tokens = int(_tokens_of_two_cores(precision.name) * min(4.0, max(0.5, threads / 2)))
    data["train"] |= {"length": f"{num_tokens} tokens", "precision": precision.name}
    data |= {
        "name": out.resolve().name,
        "out": str(out),
        "corpus": {"train": str(source), "valid": data["corpus"]["valid"]},
    }
    recipe = recipe_from(data)
    if is_finished(out, recipe) and (out / "report.html").exists() and "samples" in read_json(out / "summary.json"):
        console.print(f"{out} is finished already; these are its figures (remove the folder to run it again)\n")
        return True
    saved = out / "recipe.yaml"
    before = yaml.safe_load(saved.read_text(encoding="utf-8")) if saved.exists() else None
    changed = [] if before is None else differences(before, resolved(recipe))
    if not _is_demo(out, before, changed):
        raise UserError(
            f"{out} must be new, or a demo's folder", got="something else, which stays", do="choose another --out"
        )
    if text is None:
        _python_text(out / "text")
    same = before is not None and not changed
    if changed:
        start_over(out)
    run = pretrain(recipe, resume=same and bool(checkpoints(out)))
    if run.stop_signal is not None:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(128 + run.stop_signal)
    return False


def _is_demo(out: Path, recipe: Any, changed: Sequence[str]) -> bool:
    """Whether a folder is free, or a demo's, of this version or another. recipe: what it holds, if anything; changed:
    where that differs."""
    if holds(out / "text", "text"):
        return True
    if recipe is None:
        return not any((out / name).exists() for name in (MANIFEST, "model", "summary.json", "report.html"))
    summary = out / "summary.json"
    has_samples = summary.is_file() and "samples" in read_json(summary)
    return has_samples or all(line.startswith(_MAY_DIFFER) for line in changed)


def _tokens_of_two_cores(precision: str) -> int:
    import torch

    vectors = torch.backends.cpu.get_cpu_capability()
    return _TOKENS_OF_TWO_CORES.get(f"{precision}, {vectors}", _TOKENS_OF_TWO_CORES[precision])


def _score(out: Path, prompts: Sequence[str] | None) -> None:
    """Scores the model on the documents held back, lets it write, and completes summary and report. prompts: None: the
    beginnings of two documents held back."""
    from foundling.corpus.folder import open_corpus
    from foundling.evaluation.compression import compressed_bits_per_byte
    from foundling.evaluation.perplexity import perplexity
    from foundling.serve.load import load
    from foundling.train.report import write_report

    model = load(out)
    corpus = open_corpus(out / "corpus-0")
    row_length = model.config.max_positions
    with _stage("evaluation") as said:
        held_back = [(d.domain or d.source, d.text) for d in corpus.documents("valid")]
        score = perplexity(model.model, model.tokenizer, held_back, row_length=row_length, context=row_length // 2)
        compressed = compressed_bits_per_byte(text.encode() for _, text in held_back)
        said.append(f"{score.total.num_documents} documents, {human(score.total.num_bytes)} bytes that it never saw")
    with _stage("samples") as said:
        samples = [
            {"prompt": p, "text": model.generate(p, max_tokens=100, temperature=0.7, top_p=0.95, seed=0)}
            for p in prompts or [_beginning(text) for _, text in held_back[:2]]
        ]
        said.append(f"{len(samples)} texts written")
    summary = read_json(out / "summary.json")
    summary |= {
        "bits_per_byte": score.total.bits_per_byte,
        "compression": compressed,
        "perplexity": {source: s.figures() for source, s in {"total": score.total, **score.by_source}.items()},
        "samples": samples,
    }
    write_json(out / "summary.json", summary)
    write_report(out)


def _beginning(text: str) -> str:
    """The first words of a text, or its first characters where it has no spaces."""
    start = text.lstrip()[:_PROMPT_CHARACTERS]
    words, space, _ = start.rpartition(" ")
    return words if space and len(words) > _PROMPT_CHARACTERS // 2 else start


@contextmanager
def _stage(name: str) -> Iterator[list[str]]:
    """Tells a stage's name, what it says of itself, and its seconds."""
    start, said = time.perf_counter(), list[str]()
    with console.status(f"{name} ..."):
        yield said
    logger.info("%-11s %s (%.1f s)", name, "; ".join(said), time.perf_counter() - start)


def _tell(out: Path, seconds: float) -> None:
    """The figures, two samples, where everything lies, and what to try next."""
    summary: dict[str, Any] = read_json(out / "summary.json")
    table = Table(title="bits per byte of unseen text; lower is better", title_justify="left", box=None, min_width=60)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")
    rows = {"this model": summary["bits_per_byte"], **summary["compression"]}
    for name, value in sorted(rows.items(), key=lambda row: row[1]):
        bar = "█" * round(8 * value)
        table.add_row(name, f"{value:.3f}", bar, style="bold green" if name == "this model" else "")
    console.print(table)
    for sample in summary["samples"]:
        written = Text.assemble((sample["prompt"], "bold"), sample["text"])
        console.print(Panel(written, title="written by the model", title_align="left", width=100))
    share = summary["share_of_matmul_limit"]
    of_limit = "" if share is None else f", {100 * share:.0f} % of this machine's matmul limit"
    console.print(
        f"{human(summary['weights'])} weights, {human(summary['tokens'])} tokens in {summary['seconds']:.0f} s "
        f"({human(summary['tokens_per_second'] or 0)} tokens/s{of_limit}); "
        f"{seconds:.0f} s in all\n",
        soft_wrap=True,
    )
    for name, path in (("run", out), ("model", out / "model"), ("report", out / "report.html")):
        console.print(f"  {name:<8}{path}", soft_wrap=True)
    console.print("\nnext:", style="bold")
    prompt = summary["samples"][0]["prompt"].splitlines()[0]
    for command in (
        f"generate {out} --prompt {shlex.quote(prompt)} --max-tokens 100",
        f"evaluate {out} --suite perplexity --data {out / 'corpus-0'} --baseline ngram",
        f"demo --text YOUR_FOLDER --out {out.with_name(out.name + '-mine')}",
    ):
        console.print(f"  {_called()} {command}", soft_wrap=True, markup=False)


def _called() -> str:
    """How this program is called from here."""
    program = Path(sys.argv[0])
    if program.name != "foundling":
        return f"{sys.executable} -m foundling"
    if shutil.which("foundling") is not None:
        return "foundling"
    return os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)
