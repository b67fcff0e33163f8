"""transformers' side of benchmarks/prediction.py: a pipeline answers a file of examples.

    python -m benchmarks.peers.hf_pipeline FOLDER FILE [--batch-size 32] [--by-length] [--examples N] [--answers FILE]

FOLDER is a fine-tuned model that transformers reads; FILE has lines with `text`, or with `tokens`. Prints one line of
JSON: examples_per_s of one pass over the file, after one over its first 64, and peak_gib of the process.

What is set in its favour: examples are read beforehand; token classification gives its raw tags (aggregation none, the
least work), which become entities outside the time; --by-length hands it the examples in the order of their lengths,
which spares it padding and which a pipeline does not do by itself.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
WARM_UP = 64


def tags_by_word(tokens: list[str], found: list[dict[str, Any]]) -> list[str]:
    """The tag of each word's first token, of words joined by spaces; tokens that are left out are O."""
    said, tags, start = {one["start"]: one["entity"] for one in found}, [], 0
    for word in tokens:
        tags.append(said.get(start, "O"))
        start += len(word) + 1
    return tags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--by-length", action="store_true")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a text at most")
    parser.add_argument("--examples", type=int)
    parser.add_argument("--answers", type=Path, help="write each example's answer there, a line each")
    given = parser.parse_args()
    from transformers import pipeline

    with given.file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][: given.examples]
    of_words = "tokens" in rows[0]
    asked: list[Any] = [row["tokens"] if of_words else row["text"] for row in rows]
    order = sorted(range(len(asked)), key=lambda i: len(asked[i])) if given.by_length else list(range(len(asked)))
    inputs = [asked[i] for i in order]
    options: dict[str, Any] = {"batch_size": given.batch_size}
    if of_words:
        options["is_split_into_words"] = True
    else:
        options |= {"top_k": None, "truncation": True, "max_length": given.max_length}
    kind = "token-classification" if of_words else "text-classification"
    pipe = pipeline(kind, model=str(given.folder), device="cpu")
    pipe(inputs[:WARM_UP], **options)
    start = time.perf_counter()
    found = pipe(inputs, **options)
    seconds = time.perf_counter() - start
    if given.answers:
        answers: list[Any] = [None] * len(rows)
        for place, one in zip(order, found, strict=True):
            answers[place] = tags_by_word(asked[place], one) if of_words else {x["label"]: x["score"] for x in one}
        given.answers.write_text("".join(json.dumps(answer) + "\n" for answer in answers), encoding="utf-8")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"examples_per_s": round(len(rows) / seconds, 2), "peak_gib": round(peak, 3)}))


if __name__ == "__main__":
    main()
