"""Near duplicates against every pair: does the step find what its bands and rows promise?

    python -m benchmarks.near_duplicates FOLDER [--paragraphs 20000] [--seeds 40] [--threshold 0.75]

FOLDER holds `*.jsonl.gz` with a `text` in each line. Paragraphs of at least 20 tokens are drawn from all files, equal
ones once. The Jaccard similarity of every pair is computed from the same shingles that the step uses, through an
inverted index. Then, by buckets of similarity: pairs; the share that shares a band (and what the S-curve says of these
similarities); the share that the step links, where the estimate must pass the check, too (and what that law says).
Hashes are drawn anew for each seed, and the figures are means over seeds: one draw finds or misses the pairs of a
family of leaflets together. A line before the table has the step as it ships. One JSON line goes to standard output.
"""

import argparse
import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from foundling.corpus.clusters import agreement, candidates, clusters
from foundling.corpus.minhash import (
    MinHash,
    candidate_probability,
    found_probability,
    places_for,
)
from foundling.corpus.shingles import Hashes, shingles_of, tokens_of
from foundling.corpus.steps.near import Config

FEWEST_TOKENS = 20
LEAST_JACCARD = 0.3
BUCKETS = [0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]


def paragraphs(folder: Path, count: int) -> list[str]:
    """Different paragraphs, as many from each file as there are, evenly until `count` is reached."""
    files = sorted(folder.glob("*.jsonl.gz"))
    rng, by_file = random.Random(0), []
    for path in files:
        found: dict[bytes, str] = {}
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                text = json.loads(line)["text"]
                for paragraph in [text] if "poetry" in path.name else text.split("\n\n"):
                    tokens = tokens_of(paragraph)
                    if len(tokens) >= FEWEST_TOKENS:
                        found.setdefault(tokens.hashes.tobytes(), paragraph)
        by_file.append(rng.sample(list(found.values()), len(found)))
    result: list[str] = []
    for left, texts in zip(range(len(by_file), 0, -1), sorted(by_file, key=len), strict=True):
        result += texts[: (count - len(result)) // left]
    return result


def exact_pairs(shingles: list[Hashes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs (earlier, later) of a Jaccard similarity of at least LEAST_JACCARD, and it. [P] each."""
    sizes = np.array([len(one) for one in shingles])
    _, terms = np.unique(np.concatenate(shingles), return_inverse=True)
    owners = np.repeat(np.arange(len(shingles)), sizes)
    order = np.argsort(terms, kind="stable")
    postings = np.split(owners[order], np.flatnonzero(np.diff(terms[order])) + 1)
    own_terms = np.split(terms, np.cumsum(sizes)[:-1])
    left, right, values = [], [], []
    for number, own in enumerate(own_terms):
        shared = np.bincount(np.concatenate([postings[term] for term in own]), minlength=len(shingles))[number + 1 :]
        jaccard = shared / (sizes[number] + sizes[number + 1 :] - shared)
        near = np.flatnonzero(jaccard >= LEAST_JACCARD)
        left.append(np.full(len(near), number))
        right.append(near + number + 1)
        values.append(jaccard[near])
    return np.concatenate(left), np.concatenate(right), np.concatenate(values)


def found_pairs(shingles: list[Hashes], seed: int, bands: int, rows: int, check: float) -> list[set[int]]:
    """Pairs that share a band, and of these those whose estimate reaches the check; a pair is left * N + right."""
    hashes = MinHash(bands * rows, seed)
    signatures = np.array([hashes.signature(one) for one in shingles])
    numbers, shares, linked = np.arange(len(shingles)), set[int](), set[int]()
    for band in range(bands):
        for left, right in candidates(signatures[:, band * rows : (band + 1) * rows], numbers):
            pairs = left * len(shingles) + right
            alike = agreement(signatures, left, right) >= places_for(check, bands * rows)
            shares.update(pairs.tolist())
            linked.update(pairs[alike].tolist())
    return [shares, linked]


def shipped(shingles: list[Hashes], left: np.ndarray, right: np.ndarray, config: Config) -> np.ndarray:
    """Whether each pair is in one cluster, with the hashes that the step always has: bool [P]."""
    step = config.build()
    hashes = MinHash(step.bands * step.rows)
    signatures = np.array([hashes.signature(one) for one in shingles])
    roots = clusters(signatures, np.arange(len(shingles)), step.bands, step.rows, step.check)
    result: np.ndarray = roots[left] == roots[right]
    return result


def measure(folder: Path, count: int, num_seeds: int, config: Config) -> dict[str, Any]:
    texts = paragraphs(folder, count)
    tokens = [tokens_of(text) for text in texts]
    lengths = [config.shingle_characters if one.is_unspaced else config.shingle_words for one in tokens]
    shingles = [np.unique(shingles_of(one.hashes, length)) for one, length in zip(tokens, lengths, strict=True)]
    step = config.build()
    bands, rows, check = step.bands, step.rows, step.check
    say(
        f"{len(texts)} paragraphs, {sum(map(len, texts)) / 1e6:.1f}M characters; threshold {config.threshold}, "
        f"{bands} bands of {rows} rows, check {check:.3f}"
    )
    left, right, jaccard = exact_pairs(shingles)
    say(f"{len(jaccard)} pairs of J >= {LEAST_JACCARD} among all")
    promised = np.array(
        [
            [candidate_probability(value, bands, rows) for value in jaccard],
            [found_probability(value, bands, rows, check) for value in jaccard.round(3)],
        ]
    )
    # For the laws only the documents that are in pairs matter.
    members, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    few = [shingles[number] for number in members]
    pairs = (places[: len(left)] * len(few) + places[len(left) :]).tolist()
    hits = np.zeros((2, num_seeds, len(pairs)), bool)
    for seed in range(num_seeds):
        for kind, found in enumerate(found_pairs(few, seed, bands, rows, check)):
            hits[kind, seed] = [pair in found for pair in pairs]
    near = jaccard >= config.threshold
    joined = shipped(shingles, left[near], right[near], config)
    say(
        f"the step as it ships, J >= {config.threshold}: {len(joined)} pairs, {percent(joined)} % in one cluster, "
        f"{percent(promised[0][near])} % promised by the S-curve"
    )
    return {
        "num_paragraphs": len(texts),
        "bands": bands,
        "rows": rows,
        "threshold": config.threshold,
        "check": round(check, 4),
        "num_seeds": num_seeds,
        "buckets": table(jaccard, hits, promised),
        "shipped": {"num_pairs": len(joined), "found": percent(joined), "promised": percent(promised[0][near])},
    }


def table(jaccard: np.ndarray, hits: np.ndarray, promised: np.ndarray) -> list[dict[str, Any]]:
    """The buckets, in percent, with the standard error over seeds: pairs of one family are found or missed together."""
    result = []
    say("Jaccard       pairs    a band shared: found     promised    linked: found        promised")
    for low, high in zip(BUCKETS, [*BUCKETS[1:], 1.001], strict=True):
        inside = (jaccard >= low) & (jaccard < high)
        if not inside.any():
            continue
        row: dict[str, Any] = {"from": low, "to": min(high, 1.0), "num_pairs": int(inside.sum())}
        line = f"{low:.2f} - {min(high, 1):.2f}  {row['num_pairs']:>6}"
        for kind, name in enumerate(("band", "linked")):
            by_seed = hits[kind][:, inside].mean(axis=1)
            row[f"{name}_found"] = percent(by_seed)
            row[f"{name}_error"] = percent(by_seed.std() / np.sqrt(len(by_seed)))
            row[f"{name}_promised"] = percent(promised[kind][inside])
            line += f"{row[f'{name}_found']:>16} ± {row[f'{name}_error']:<5}{row[f'{name}_promised']:>8}"
        say(line)
        result.append(row)
    return result


def percent(shares: np.ndarray) -> float:
    return round(100 * float(np.mean(shares)), 2)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--paragraphs", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--threshold", type=float, default=Config.model_fields["threshold"].default)
    arguments = parser.parse_args()
    config = Config(kind="near", threshold=arguments.threshold)
    result = measure(arguments.folder, arguments.paragraphs, arguments.seeds, config)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
