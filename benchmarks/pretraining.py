"""So many minutes of pretraining by each of recipes/{gpt,bert,modernbert,xlnet}-mini.yaml, and what is known then.

    python -m benchmarks.pretraining OUT --source literature.jsonl.gz [--source ...] --pairs blimp.jsonl.gz
        [--minutes 20] [--only gpt ...] [--peer NAME="COMMAND" ...] [--set gpt.train.batch="8Ki tokens"]

All are trained on one corpus (cleaned by no rule, 2 % of its documents held back). A short run first measures the
rate, from which the length follows; it also leaves the compiler's kernels behind, and the seconds of the long run
say what it took. Each is then examined by `foundling evaluate`: perplexity and bits per byte of a decoder,
pseudo-perplexity of what reads both sides, minimal pairs of all, with a 5-gram Kneser-Ney model of the same tokens
beside. XLNet and BERT have cut the text by tokenizers of their own, so perplexities are compared with the 5-gram of the
same tokenizer; a pseudo-perplexity sees both sides of a token and is no perplexity, and the 5-gram stands beside it
only as a yardstick.

A peer is a command that trains the model of `{config}` (a model folder's configuration) on `{tokens}` (a token store)
with the tokenizer of `{tokenizer}` for `{minutes}` minutes and leaves a model folder in `{out}`, which is examined in
the same way:

    --peer hf="python -m benchmarks.peers.hf_pretraining {config} {tokens} {tokenizer} {out} --minutes {minutes}"

Everything is kept under OUT; what is there already is not made again. One JSON line a model, then a table.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks._compare import machine

RECIPES = Path(__file__).parent.parent / "recipes"
FAMILIES = ("gpt", "bert", "modernbert", "xlnet")
PEER_OF = "gpt"
"""The family whose model and data the peers get."""
PROBE_STEPS = 120
SPARE = 0.98
"""Share of the minutes that the length is planned for: the probe's rate is one of a few seconds."""
PSEUDO_TOKENS = 6_000
"""Scored of each row; every token costs a row."""


def foundling(*words: str | Path) -> None:
    """One command of ours. Raises SystemExit where it fails."""
    done = subprocess.run([sys.executable, "-m", "foundling", *map(str, words)], stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"foundling {shlex.join(map(str, words))} failed")


def corpus_of(out: Path, sources: list[str]) -> Path:
    folder = out / "corpus"
    foundling("corpus", "build", *sources, "--out", folder, "steps=plain", "valid_fraction=0.02")
    return folder


def pretrain(out: Path, family: str, corpus: Path, minutes: float, given: list[str]) -> Path:
    """The long run's folder."""
    run = out / family
    if (run / "summary.json").is_file():
        return run
    probe = out / f"{family}-probe"
    shared = [f"corpus.train={corpus}", *given]
    tokenizer = f"tokenizer.path={out / family}-tokenizer"
    recipe = RECIPES / f"{family}-mini.yaml"
    if not (probe / "summary.json").is_file():
        planned = [f"train.length={PROBE_STEPS} steps", "evaluate.tokens=1K", "train.compile=true"]
        foundling("pretrain", recipe, *shared, tokenizer, *planned, "train.log_every=5", f"out={probe}")
    lines = [json.loads(line) for line in (probe / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rate = statistics.median(line["train/tokens_per_second"] for line in lines if "train/tokens_per_second" in line)
    length = f"train.length={round(rate * 60 * minutes * SPARE)} tokens"
    foundling("pretrain", recipe, *shared, tokenizer, length, "evaluate.every=25 %", f"out={run}")
    return run


def examine(model: Path, figures: Path, *, both_sides: bool, corpus: Path, pairs: str, limit: int) -> dict[str, Any]:
    """Figures of a model: of text, and of minimal pairs."""
    baseline = ["--baseline", "ngram", "--baseline-data", str(corpus)]
    text, grammar = figures.with_suffix(".text.json"), figures.with_suffix(".pairs.json")
    suite = ["pseudo-perplexity", f"tokens={PSEUDO_TOKENS}"] if both_sides else ["perplexity"]
    foundling("evaluate", model, "--data", corpus, "--json", text, *baseline, "--suite", *suite)
    foundling(
        "evaluate", model, "--data", pairs, "--json", grammar, "--suite", "minimal-pairs", *baseline, f"limit={limit}"
    )
    return {"text": json.loads(text.read_text()), "pairs": json.loads(grammar.read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--pairs", required=True, help="minimal pairs in BLiMP's format")
    parser.add_argument("--limit", type=int, default=100, help="minimal pairs of each kind")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--only", action="append", help="a family or a peer; repeatable")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--set", action="append", default=[], metavar="FAMILY.KEY=VALUE", help="settings of a recipe")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(given.out, given.source)
    found: dict[str, dict[str, Any]] = {}
    for family in FAMILIES:
        if given.only and family not in given.only:
            continue
        mine = [words.removeprefix(f"{family}.") for words in given.set if words.startswith(f"{family}.")]
        run = pretrain(given.out, family, corpus, given.minutes, mine)
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        found[family] = {
            "weights": summary["weights"],
            "tokens": summary["tokens"],
            "seconds": summary["seconds"],
            **examine(
                run, given.out / family, both_sides=family != PEER_OF, corpus=corpus, pairs=given.pairs,
                limit=given.limit,
            ),
        }  # fmt: skip
        line = {"system": family, **found[family], "settings": summary["settings"], "machine": machine()}
        print(json.dumps(line), flush=True)
    for peer in given.peer:
        name, _, command = peer.partition("=")
        if given.only and name not in given.only:
            continue
        run, folder = given.out / PEER_OF, given.out / name
        filled = {
            "config": run / "model",
            "tokens": next(path for path in run.glob("tokens-*") if path.name != "tokens-valid"),
            "tokenizer": given.out / f"{PEER_OF}-tokenizer",
            "out": folder,
            "minutes": given.minutes,
        }
        if not folder.is_dir():
            done = subprocess.run(shlex.split(command.format(**filled)), capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{command} failed:\n{done.stderr[-2000:]}")
            lines = [line for line in done.stdout.splitlines() if line.startswith('{"')]
            (given.out / f"{name}.json").write_text(lines[-1], encoding="utf-8")
        trained = json.loads((given.out / f"{name}.json").read_text(encoding="utf-8"))
        found[name] = trained | examine(
            folder, given.out / name, both_sides=False, corpus=corpus, pairs=given.pairs, limit=given.limit
        )
        print(json.dumps({"system": name, **found[name], "command": command, "machine": machine()}), flush=True)
    show(found)


def show(found: dict[str, dict[str, Any]]) -> None:
    print("\n| model | weights | tokens | seconds | of text | 5-gram | minimal pairs | 95 % | 5-gram |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, figures in found.items():
        text, pairs = figures["text"], figures["pairs"]
        if "pseudo_perplexity" in text:
            model, beside = f"pseudo-perplexity {text['pseudo_perplexity']:.1f}", _short(text["baseline"])
        else:
            model, beside = (
                f"{one['bits_per_byte']:.3f} bits per byte, {_short(one)}" for one in (text, text["baseline"])
            )
        cells = [
            name,
            f"{figures['weights'] / 1e6:.1f}M",
            f"{figures['tokens'] / 1e6:.1f}M",
            f"{figures['seconds']:.0f}",
            model,
            beside,
            f"{pairs['accuracy']:.3f}",
            f"{pairs['low']:.3f} - {pairs['high']:.3f}",
            f"{pairs['baseline']['all']['accuracy']:.3f}",
        ]
        print(f"| {' | '.join(cells)} |")


def _short(figures: dict[str, Any]) -> str:
    return f"perplexity {figures['perplexity']:.1f}"


if __name__ == "__main__":
    main()
