"""Raw text for the corpus benchmarks, as JSON lines, from a folder of corpora.

DATA has `*.jsonl.gz` with a `text` in each line (Chinese ones begin with `zh`) and `literature-html/*/*.xhtml`.
"""

import gzip
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MEGABYTE = 10**6
_SHARD_BYTES = 32 * MEGABYTE
_CHANGED = 0.25
"""Share of words that a copy has others for, of those that are letters alone. Between 464 copies and their originals
the Jaccard similarity of pairs of words was 0.49 on average and 0.55 at most: no near duplicates."""
_UNCHANGED_DOCUMENTS = 0.1
"""Share of a copy's documents that stay as they are: duplicates."""

Row = dict[str, Any]


def pages(data: Path) -> list[Row]:
    """The HTML documents."""
    files = sorted(data.glob("literature-html/*/*.xhtml"))
    return [{"id": f"html/{path.parent.name}/{path.stem}", "text": path.read_text("utf-8")} for path in files]


def texts(data: Path, chinese: bool) -> Iterator[Row]:
    """The documents of the JSON lines. chinese: those of `zh*`, too."""
    for path in sorted(data.glob("*.jsonl.gz")):
        if path.name.startswith("zh") and not chinese:
            continue
        name = path.name.partition(".")[0]
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file):
                yield {"id": f"{name}/{number}", "text": json.loads(line)["text"]}


def write_for_comparing(data: Path, folder: Path, num_files: int, max_bytes: int | None) -> int:
    """English documents as `html-*.jsonl` and `text-*.jsonl`, as many of each, about equally large; returns bytes.

    Which texts are HTML is told by the file's name, since the peer cannot tell. max_bytes: a random part, with as
    large a share of HTML as in the whole.
    """
    rows = {"html": pages(data), "text": list(texts(data, chinese=False))}
    total = sum(len(_line(row)) for part in rows.values() for row in part)
    share = 1.0 if max_bytes is None else min(1.0, max_bytes / total)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    num_bytes = 0
    for kind, part in rows.items():
        random.Random(0).shuffle(part)
        lines = _until([_line(row) for row in part], share)
        num_bytes += sum(map(len, lines))
        for number, portion in enumerate(_portions(lines, num_files)):
            (folder / f"{kind}-{number:03d}.jsonl").write_bytes(b"".join(portion))
    return num_bytes


def _until(lines: list[bytes], share: float) -> list[bytes]:
    ends = np.cumsum([len(line) for line in lines])
    return lines[: int(np.searchsorted(ends, share * ends[-1])) + 1]


def _portions(lines: list[bytes], count: int) -> list[list[bytes]]:
    """Each line goes to the portion that is smallest so far."""
    portions: list[list[bytes]] = [[] for _ in range(count)]
    sizes = [0] * count
    for line in lines:
        smallest = sizes.index(min(sizes))
        portions[smallest].append(line)
        sizes[smallest] += len(line)
    return portions


def write_copies(data: Path, folder: Path, num_bytes: int) -> int:
    """At least `num_bytes` of JSON lines: all documents, then copies of them with other words; returns bytes.

    A copy of a text has a quarter of its words from elsewhere in the corpora, drawn by a seed; one document in ten is
    copied as it is, and so is HTML, whose tags would not survive.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    html, plain = pages(data), list(texts(data, chinese=True))
    generator = np.random.default_rng(0)
    words, characters = _vocabulary(plain)
    written, copy, number = 0, 0, 0
    while written < num_bytes:
        rows = html + plain if copy == 0 else plain
        for row in rows:
            if written >= number * _SHARD_BYTES:
                file = (folder / f"{number:03d}.jsonl").open("wb")
                number += 1
            text = row["text"]
            if copy and generator.random() >= _UNCHANGED_DOCUMENTS:
                text = _changed(text, words, characters, generator)
            line = _line({"id": f"{row['id']}#{copy}", "text": text})
            file.write(line)
            written += len(line)
            if written >= num_bytes:
                break
            if written >= number * _SHARD_BYTES:
                file.close()
        copy += 1
    file.close()
    return written


def _vocabulary(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Words of spaced text and characters of Chinese, as often as they occur in a sample."""
    sample = random.Random(0).sample(rows, min(2000, len(rows)))
    spaced = [row["text"].split(" ") for row in sample if _is_spaced(row["text"])]
    unspaced = [list(row["text"]) for row in sample if not _is_spaced(row["text"])]
    return (
        np.array([word for text in spaced for word in text if word.isalpha()], object),
        np.array([character for text in unspaced for character in text if character.isalpha()] or ["一"], object),
    )


def _is_spaced(text: str) -> bool:
    return 20 * text.count(" ") > len(text)


def _changed(text: str, words: np.ndarray, characters: np.ndarray, generator: np.random.Generator) -> str:
    spaced = _is_spaced(text)
    pieces = text.split(" ") if spaced else list(text)
    places = np.flatnonzero(generator.random(len(pieces)) < _CHANGED)
    known = words if spaced else characters
    for place, other in zip(places.tolist(), known[generator.integers(len(known), size=len(places))], strict=True):
        if pieces[place].isalpha():
            pieces[place] = other
    return (" " if spaced else "").join(pieces)


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
