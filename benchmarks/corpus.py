"""`foundling corpus build` against datatrove with the same steps over the same files; and its memory over much text.

    python -m benchmarks.corpus DATA [--rounds 3] [--peer-python PYTHON] [--megabytes 10]
    python -m benchmarks.corpus DATA --memory 1 [--work FOLDER]

DATA: see benchmarks/_raw_text.py. PYTHON is that of an environment with datatrove (benchmarks/peers/datatrove_corpus.py
says how to make one). The steps: HTML to main text; Gopher's quality rules with Gopher's thresholds, and lorem ipsum;
MinHash near duplicates of 14 bands of 8 rows over 5-grams of words, where the bands alone decide: datatrove's defaults.
datatrove runs twice: with its own English words (spaCy's rules) and with words by white space, which is what we do and
costs it less. Rounds take turns, each contender in fresh processes on the same two cores, timed from the start of the
command to its end. One JSON line a run, then a table: medians, and the ratio's 95 % interval over rounds. The documents
that each kept are compared outside the timed part.

--memory GB builds a corpus with the `crawl` preset (all steps) of a quarter of so much raw text and of all of it: the
corpora, then copies with other words in them. Peaks are sums over all processes, sampled ten times a second.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks._compare import cost_of, interval
from benchmarks._raw_text import MEGABYTE, write_copies, write_for_comparing
from foundling.corpus.folder import open_corpus

BANDS, ROWS, NGRAMS = 14, 8, 5
CORES = 2
MOST_GIB = 1.5
"""What `--memory` holds the larger peak against."""
_GOPHER = {
    "min_words": 50,
    "max_words": 100_000,
    "min_mean_word": 3,
    "max_mean_word": 10,
    "max_symbols": 0.1,
    "max_bullet_lines": 0.9,
    "max_ellipsis_lines": 0.3,
    "min_words_with_letters": 0.8,
    "max_filler": 0,
}
_OFF = dict.fromkeys(("max_links", "min_letters", "max_menu_line_words", "max_template_lines"))
_NEAR = {
    "shingle_words": NGRAMS,
    "num_hashes": BANDS * ROWS,
    "bands": BANDS,
    "rows": ROWS,
    "check": 0,
}
SETTINGS = [
    "steps=[html, quality, near]",
    *(f"steps.quality.{key}={json.dumps(value)}" for key, value in (_GOPHER | _OFF).items()),
    *(f"steps.near.{key}={value}" for key, value in _NEAR.items()),
]


def build_command(source: Path, out: Path, *settings: str) -> list[str]:
    return [sys.executable, "-m", "foundling", "corpus", "build", str(source), "--out", str(out), *settings]


def peer_command(python: str, source: Path, out: Path, words: str) -> list[str]:
    script = Path(__file__).parent / "peers" / "datatrove_corpus.py"
    options = ["--words", words, "--bands", str(BANDS), "--rows", str(ROWS), "--ngrams", str(NGRAMS)]
    return [python, str(script), str(source), str(out), *options]


def kept_by_us(out: Path) -> set[str]:
    """The input's ids of the documents that stayed."""
    return {document.meta["id"] for document in open_corpus(out).documents()}


def kept_by_peer(out: Path) -> set[str]:
    ids = set()
    for path in sorted((out / "kept").glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            ids |= {json.loads(line)["id"] for line in file}
    return ids


def compare(data: Path, work: Path, rounds: int, python: str | None, max_bytes: int | None) -> None:
    source = work / "input"
    num_bytes = write_for_comparing(data, source, CORES, max_bytes)
    commands = {"foundling": build_command(source, work / "foundling", *SETTINGS)}
    if python:
        for name, words in (("datatrove", "spacy"), ("datatrove, words by white space", "split")):
            commands[name] = peer_command(python, source, work / words, words)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    kept: dict[str, set[str]] = {}
    for number in range(rounds):
        for name, command in commands.items():
            out = work / ("foundling" if name == "foundling" else command[command.index("--words") + 1])
            shutil.rmtree(out, ignore_errors=True)
            cost = cost_of(command)
            kept[name] = kept_by_us(out) if name == "foundling" else kept_by_peer(out)
            run = {
                "system": name,
                "round": number,
                "megabytes": round(num_bytes / MEGABYTE, 1),
                "seconds": round(cost.seconds, 2),
                "mb_per_s": round(num_bytes / MEGABYTE / cost.seconds, 2),
                "peak_gib": round(cost.peak_gib, 3),
                "peak_rss_gib": round(cost.peak_rss_gib, 3),
                "documents_kept": len(kept[name]),
            }
            runs[name].append(run)
            print(json.dumps(run), flush=True)
    _print_table(runs)
    ours = kept["foundling"]
    for name, its in kept.items():
        if name != "foundling":
            print(f"\n{name}: {len(ours & its)} documents kept by both, {len(ours - its)} by us alone, ", end="")
            print(f"{len(its - ours)} by it alone; for example {sorted(ours - its)[:3]} and {sorted(its - ours)[:3]}")


def _print_table(runs: dict[str, list[dict[str, Any]]]) -> None:
    print("\n| system | MB/s (median) | seconds | peak GiB | documents kept | ours / it | 95 % |")
    print("|---|---|---|---|---|---|---|")
    for name, found in runs.items():
        rate, seconds, peak = (
            statistics.median(run[key] for run in found) for key in ("mb_per_s", "seconds", "peak_gib")
        )
        row = f"| {name} | {rate:.2f} | {seconds:.1f} | {peak:.2f} | {found[-1]['documents_kept']:,} "
        if name == "foundling":
            print(row + "| | |")
            continue
        ratios = [it["seconds"] / ours["seconds"] for it, ours in zip(found, runs["foundling"], strict=True)]
        low, high = interval(ratios)
        print(row + f"| {statistics.median(ratios):.2f} | {low:.2f} - {high:.2f} |")


def memory(data: Path, work: Path, gigabytes: float) -> None:
    rows = []
    for number, size in enumerate((gigabytes / 4, gigabytes)):
        source, out = work / f"raw-{number}", work / f"corpus-{number}"
        num_bytes = write_copies(data, source, round(size * 1000 * MEGABYTE))
        cost = cost_of(build_command(source, out, "steps=crawl"), sample_seconds=0.1)
        counts = json.loads((out / "manifest.json").read_text("utf-8"))["counts"]
        row = {
            "gigabytes": round(num_bytes / MEGABYTE / 1000, 3),
            "seconds": round(cost.seconds, 1),
            "mb_per_s": round(num_bytes / MEGABYTE / cost.seconds, 2),
            "peak_gib": round(cost.peak_gib, 3),
            "peak_rss_gib": round(cost.peak_rss_gib, 3),
            "processes": cost.num_processes,
            "documents_read": counts["num_documents_read"],
            "documents_kept": counts["num_documents"],
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
        shutil.rmtree(source)
        shutil.rmtree(out)
    small, large = rows
    text, peak = large["gigabytes"] / small["gigabytes"], large["peak_gib"] / small["peak_gib"]
    print(
        f"\n{text:.2f} x the text took {peak:.2f} x the memory; the larger peak is {large['peak_gib']:.2f} GiB, ",
        end="",
    )
    print(f"{'below' if large['peak_gib'] < MOST_GIB else 'NOT BELOW'} {MOST_GIB} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", metavar="PYTHON")
    parser.add_argument("--megabytes", type=float, help="use this much of the input only, to try things out")
    parser.add_argument("--memory", type=float, metavar="GB", help="measure memory instead")
    parser.add_argument("--work", type=Path, help="folder for inputs and outputs (several times the input's size)")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)  # all that is started here inherits it
    with TemporaryDirectory(dir=given.work, prefix="corpus-benchmark-") as name:
        if given.memory:
            memory(given.data, Path(name), given.memory)
        else:
            max_bytes = None if given.megabytes is None else round(given.megabytes * MEGABYTE)
            compare(given.data, Path(name), given.rounds, given.peer_python, max_bytes)


if __name__ == "__main__":
    main()
