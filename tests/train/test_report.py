"""The page of a run shows what the folder's files say, stands alone, and stays true for runs that were cut short."""

import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from foundling.core.errors import UserError
from foundling.core.files import write_json, write_manifest
from foundling.train.report import write_report

STEPS = 400
SETTLED = {
    "row_length": 256,
    "batch_rows": 32,
    "micro_batch_rows": 8,
    "total_steps": STEPS,
    "lr": 0.003,
    "precision": "bf16",
    "compiled": True,
}
SAMPLES = [
    {"prompt": "class Queue:", "text": '\n    """A first-in, first-out <b>queue</b>."""\n\n    def __init__(self):\n'},
    {"prompt": "The with statement", "text": " is used to wrap the execution of a block with methods & managers."},
]


def metric_lines(last_step: int) -> list[dict[str, Any]]:
    """What the callbacks write: a line of training figures every 10 steps, validation at 0 and every 50."""
    noise, lines = random.Random(0), []
    for step in range(0, last_step + 1, 10):
        loss = 2.1 + 6.9 * math.exp(-step / 60) + noise.gauss(0, 0.05)
        if step:
            tokens, seconds = step * 8192, step * 0.41
            names = ("loss", "gradient_norm", "lr", "tokens", "tokens_per_second", "share_of_matmul_limit", "seconds")
            rate = 20_000 + noise.gauss(0, 400)
            values = (loss, 0.4 + 3 / (1 + step / 20), 0.003 * (1 - step / STEPS), tokens, rate, 0.33, seconds)
            lines.append({"step": step} | {f"train/{n}": v for n, v in zip(names, values, strict=True)})
        if step % 50 == 0:
            score = {"loss": loss + 0.1, "perplexity": math.exp(loss + 0.1), "bits_per_byte": (loss + 0.1) / 2.3}
            lines.append({"step": step} | {f"valid/{n}": v for n, v in score.items()})
    return lines


def make_run(folder: Path, *, last_step: int = STEPS, summary: dict[str, Any] | None = None) -> Path:
    """A run folder as training leaves it; summary: what stands in summary.json beside its usual figures."""
    folder.mkdir(parents=True)
    recipe = {"name": "demo <1>", "model": {"family": "gpt", "size": "small"}, "objective": {"kind": "causal"}}
    write_json(
        folder / "manifest.json",
        {
            "kind": "run",
            "settings": {"recipe": recipe, "inputs": {}, "settled": SETTLED},
            "inputs": {"stdlib": "ab" * 32, "tokenizer": "cd" * 32},
            "counts": {"weights": 10_700_000, "train_tokens": 3_900_000, "valid_tokens": 40_000},
            "code": {"foundling": "0.1.0"},
            "machine": {"processor": "A <fast> one", "threads": 2, "python": "3.11.2", "torch": "2.13.0"},
        },
    )
    (folder / "recipe.yaml").write_text("name: demo <1>\nnote: '</pre><script>alert(1)</script>'\n", encoding="utf-8")
    lines = "".join(json.dumps(line) + "\n" for line in metric_lines(last_step))
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    if summary is not None:
        figures = {"finished": last_step == STEPS, "steps": last_step, "tokens": last_step * 8192, "seconds": 164.2}
        write_json(folder / "summary.json", figures | summary)
    return folder


def add_store(folder: Path) -> None:
    (folder / "tokens-0").mkdir()
    pair = {"tokens": 3_900_000, "documents": 1234, "bytes": 12_000_000}
    counts = {
        "train": {"by_source": {"stdlib": pair}},
        "valid": {"by_source": {"stdlib": {"tokens": 40_000, "documents": 11, "bytes": 120_000}}},
    }
    write_manifest(folder / "tokens-0", "token store", settings={}, inputs={}, counts=counts)


def score(bits: float) -> dict[str, float]:
    """What `Score.figures` gives."""
    figures = {"bits_per_byte": bits, "loss": 2.2, "perplexity": 9.025}
    return figures | {"tokens": 20_000, "bytes": 60_000, "documents": 9}


class Tags(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(folder: Path) -> str:
    path = write_report(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_a_finished_run(tmp_path: Path) -> None:
    extra = {
        "valid": {"bits_per_byte": 7.777, "loss": 7.7, "perplexity": 7777},
        "compression": {"gzip -9": 2.71, "xz -9e": 1.95},
        "perplexity": {"total": score(1.234), "library": score(1.199)},
        "samples": SAMPLES,
    }
    folder = make_run(tmp_path / "run", summary=extra)
    add_store(folder)
    page = page_of(folder)
    tags = Tags(page)
    assert tags.open == []
    assert tags.seen.count("svg") == 5
    shown = ("1.234", "9.025", "1.950", "2.710", "3.28M", "3 min", "400 steps", "1,245", "40,000", "1.199")
    for text in (*shown, "A &lt;fast&gt; one"):
        assert text in page, text
    assert "7.77" not in page, "the whole text's score stands before validation's"
    assert page.index("this model") < page.index("xz -9e") < page.index("gzip -9"), "best first"


def test_the_page_stands_alone_and_escapes_what_it_shows(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", summary={"samples": SAMPLES}))
    assert "script" not in Tags(page).seen
    assert "&lt;b&gt;queue&lt;/b&gt;" in page
    assert "demo &lt;1&gt;" in page
    assert not re.search(r"(src|href)=|url\(|@import|https?:", page), "the page must load nothing"


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", summary={})
    assert page_of(folder) == page_of(folder)


def test_a_run_stopped_early_says_so(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", last_step=130, summary={}))
    assert "stopped after step 130 of 400" in page
    assert "Samples" not in page
    assert "compressors" not in page


def test_a_run_that_was_killed_shows_its_last_lines(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", last_step=130)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 140, "train/lo')
    page = page_of(folder)
    assert "at step 130 of 400, not finished" in page
    assert f"{metric_lines(130)[-1]['train/loss']:.3f}" in page


def test_a_run_that_has_not_trained_yet(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    page = page_of(folder)
    assert "at step 0 of 400" in page
    assert "Curves" not in page


def test_figures_that_are_not_finite_do_not_break_the_curves(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", last_step=130)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 140, "train/loss": NaN, "train/gradient_norm": Infinity}\n')
    page = page_of(folder)
    assert not re.search(r'd="[^"]*(nan|inf)', page)
    last = metric_lines(130)[-1]["train/loss"]
    assert f"<b>{last:.3f}</b><span>training loss" in page, "the last figure that is one"


def test_sources_that_are_mixed_have_their_last_losses(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    assert "What is mixed" not in page_of(folder)
    told = {"tokens/news": 4096, "tokens/<b>": 1024, "loss/news": 3.5}
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 400} | {f"train/{k}": v for k, v in told.items()} | {"valid/loss/news": 2.718}))
    page = page_of(folder)
    assert re.search(r"news</td>.*4,096.*3\.500.*2\.718", page)
    assert re.search(r"&lt;b&gt;</td>.*1,024</td><td class=\"n\"></td><td class=\"n\"></td>", page)


def test_faults_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a run folder must hold a manifest.json"):
        write_report(tmp_path)
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text('{"step": 1}\nbroken\n{"step": 2}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2 of .*metrics.jsonl must be JSON"):
        write_report(folder)
    assert not (folder / "report.html").exists()
