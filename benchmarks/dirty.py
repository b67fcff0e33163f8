"""Cleaning against known faults: the steps of `crawl` over a small crawl of which every fault is known.

    python -m benchmarks.dirty DIRTY.jsonl [--clean FILE ...] [--steps crawl|[html, ...]]

DIRTY.jsonl: lines with `id`, `text`, `kind` (the fault, `clean` or `chinese`), and where it applies `clean` (what a
perfect cleaner gives back), `pii` (strings to mask); some lines may be no JSON. What the steps did to a document tells
one fault: the reason for which it went, else the first of HTML, mojibake, boilerplate, personal data, control
characters and URLs that was found in it. Precision and recall are of that. Texts, masks and line numbers are
checked against the corpus folder that `build_corpus` wrote, which must agree with the steps run one by one.

--clean: good texts, each built with the same steps; prints what was dropped of each, by reason. Prints one line of JSON
at the end.
"""

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import yaml

from foundling.corpus.build import Config, build_corpus
from foundling.corpus.document import Document, Drop
from foundling.corpus.scripts import words_of
from foundling.corpus.steps.base import CorpusStep, SurveyStep

_BY_REASON = {
    "only_furniture": "boilerplate",
    "only_boilerplate": "boilerplate",
    "too_few_words": "very_short",
    "too_short": "very_short",
    "duplicate": "exact_duplicate",
    "near_duplicate": "near_duplicate",
    "looping_lines": "repeated_lines",
    "repeated_lines": "repeated_lines",
    "repeated_ngrams": "repeated_lines",
    "top_ngram": "repeated_lines",
}
_BY_STEP = {
    "html": "html_fragment",
    "mojibake": "mojibake",
    "boilerplate": "boilerplate_lines",
    "furniture": "boilerplate_lines",
    "privacy": "pii",
    "unicode": "control_chars",
    "whitespace": "control_chars",
}
"""In the order in which they tell a document's fault."""
_VERY_SHORT_WORDS = 8
_GOOD = ("clean", "chinese")


class Traced:
    """A document and what the steps did to it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.touched: dict[str, dict[str, int]] = {}
        self.first_text = document.text
        self.drop: tuple[str, Drop] | None = None
        self.urls = 0  # found by the step `privacy`, which keeps them unless set otherwise

    def told(self) -> str:
        """The fault that the steps saw, or `none`."""
        if self.drop is not None:
            if not self.first_text.strip():
                return "empty"
            if self.drop[1].reason == "only_furniture" and len(words_of(self.first_text)) < _VERY_SHORT_WORDS:
                return "very_short"  # such as "Read more": both are true
            return _BY_REASON.get(self.drop[1].reason, f"{self.drop[0]}.{self.drop[1].reason}")
        for step, kind in _BY_STEP.items():
            if step in self.touched:
                found = self.touched[step]
                return f"pii_{next((what for what in found if what != 'url'), 'other')}" if kind == "pii" else kind
        return "url" if self.urls else "none"


def trace(documents: list[Document], config: Config) -> list[Traced]:
    """The steps one after the other over all documents."""
    traced = [Traced(document) for document in documents]
    for part in config.steps:
        step: Any = part.build()
        here = [one for one in traced if one.drop is None]
        if isinstance(step, SurveyStep):
            step.survey(step.signature(one.document) for one in here)
        for number, one in enumerate(here):
            if isinstance(step, SurveyStep):
                answer = step.decide(number, one.document)
            elif isinstance(step, CorpusStep):
                answer = step.admit(step.signature(one.document)) or one.document
            else:
                answer = step.apply(one.document)
            if isinstance(answer, Drop):
                one.drop = (part.kind, answer)
                continue
            one.urls += answer.found.get("url", 0)
            if answer.text != one.document.text and set(answer.found) != {"url"}:
                one.touched[part.kind] = dict(answer.found)
            one.document = replace(answer, found={})
    return traced


def read(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows with their line numbers under `line`, and the numbers of the lines that are no JSON."""
    rows, malformed = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append({**json.loads(line), "line": number})
        except ValueError:
            malformed.append(number)
    return rows, malformed


def scores(pairs: list[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """kind -> precision and recall, of (truth, told) pairs."""
    found: dict[str, dict[str, float]] = {}
    for kind in sorted({truth for truth, _ in pairs} - set(_GOOD)):
        hits = sum(truth == told == kind for truth, told in pairs)
        num_told, num_true = sum(told == kind for _, told in pairs), sum(truth == kind for truth, _ in pairs)
        found[kind] = {
            "documents": num_true,
            "recall": hits / num_true,
            "precision": hits / num_told if num_told else 0.0,
        }
    return found


def similarity(a: str, b: str) -> float:
    """Share of characters in common, in order: difflib's ratio."""
    return 1.0 if a == b else SequenceMatcher(None, a, b, autojunk=False).ratio()


def measure(path: Path, config: Config) -> dict[str, Any]:
    """All figures of one file."""
    rows, malformed = read(path)
    with tempfile.TemporaryDirectory() as temporary:
        corpus = build_corpus([path], Path(temporary) / "corpus", config)
        built = {document.id: document.text for document in corpus.documents()}
        problems = corpus.manifest["counts"]["problems"]
    names = {row["line"]: f"{path.name}:{row['line']}" for row in rows}
    documents = [Document(names[row["line"]], row["text"], path.stem, path.stem, meta=_meta(row)) for row in rows]
    traced = trace(documents, config)
    kept = {one.document.id: one.document.text for one in traced if one.drop is None}
    assert kept == built, "the corpus folder differs from the steps run one by one"
    texts: dict[str, list[float]] = defaultdict(list)
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    num_kept, num_unchanged, masked, personal, wrong = Counter[str](), Counter[str](), 0, 0, []
    for row, one in zip(rows, traced, strict=True):
        kind, text = row["kind"], kept.get(one.document.id)
        confusion[kind][one.told()] += 1
        num_kept[kind] += text is not None
        num_unchanged[kind] += text == row["text"]
        if kind in _GOOD and text != row["text"]:
            wrong.append(f"{row['id']}: {one.drop[1] if one.drop else sorted(one.touched)}")
        if "clean" in row:
            texts[kind].append(similarity(text, row["clean"]) if text is not None else 0.0)
        for string in row.get("pii", ()):
            personal += 1
            masked += text is None or string not in text
    told_lines = _lines(problems)
    return {
        "malformed_lines_told": f"{sorted(set(malformed) & told_lines)} of {malformed}",
        "scores": scores([(row["kind"], one.told()) for row, one in zip(rows, traced, strict=True)]),
        "told": {kind: dict(counter) for kind, counter in sorted(confusion.items())},
        "unchanged": {
            kind: f"{num_unchanged[kind]} of {confusion[kind].total()}" for kind in _GOOD if kind in confusion
        },
        "languages": {
            kind: dict(
                Counter(
                    str(one.document.language) for one, row in zip(traced, rows, strict=True) if row["kind"] == kind
                )
            )
            for kind in _GOOD
        },
        "wrong": wrong,
        "similarity": {kind: {"mean": sum(v) / len(v), "least": min(v)} for kind, v in sorted(texts.items())},
        "personal_data_masked": f"{masked} of {personal}",
    }


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("text", "line")}


def _lines(problems: dict[str, Any]) -> set[int]:
    told: set[int] = set()
    for places in problems.get("malformed_line", {}).get("lines", {}).values():
        for run in places.split(", "):
            first, _, last = run.partition("-")
            told.update(range(int(first), int(last or first) + 1))
    return told


def drops(path: Path, config: Config) -> Iterator[tuple[str, int, float]]:
    """(step.reason, documents, share) of what the steps take of good texts, and the documents they change."""
    with tempfile.TemporaryDirectory() as temporary:
        counts = build_corpus([path], Path(temporary) / "corpus", config).manifest["counts"]
    total = counts["num_documents_read"]
    for step in counts["steps"]:
        for reason, number in step["dropped"].items():
            yield f"{step['step']}.{reason}", number, number / total
        if step["num_changed"]:
            yield f"{step['step']} changed", step["num_changed"], step["num_changed"] / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dirty", type=Path)
    parser.add_argument("--clean", type=Path, nargs="*", default=[])
    parser.add_argument("--steps", default="crawl")
    arguments = parser.parse_args()
    config = Config.model_validate({"steps": yaml.safe_load(arguments.steps)})
    figures = measure(arguments.dirty, config)
    for kind, score in figures["scores"].items():
        told = ", ".join(f"{name} {number}" for name, number in figures["told"][kind].items())
        print(f"{kind:18} recall {score['recall']:.3f} precision {score['precision']:.3f}  ({told})")
    for name in ("malformed_lines_told", "unchanged", "similarity", "personal_data_masked", "languages", "wrong"):
        print(f"{name}: {figures[name]}")
    figures["good_texts"] = {}
    for path in arguments.clean:
        found = {what: [number, round(share, 5)] for what, number, share in drops(path, config)}
        figures["good_texts"][path.name] = found
        print(
            f"{path.name}: {', '.join(f'{what} {n} ({100 * s:.2f} %)' for what, (n, s) in found.items()) or 'nothing'}"
        )
    print(json.dumps(figures, ensure_ascii=False))


if __name__ == "__main__":
    main()
