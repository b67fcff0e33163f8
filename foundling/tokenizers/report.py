"""What a tokenizer does to texts: how many tokens they cost, whether they come back, what it does not know."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.table import Table

from foundling.core.files import write_json
from foundling.tokenizers.base import Tokenizer

REPORT_FILE = "report.json"
_BATCH_TEXTS = 64
_SCRIPT_SAMPLE = 400
"""Characters of a text that decide its script."""
_EXAMPLE = 40
"""Characters shown on either side of the first difference of a round trip."""


class TextLike(Protocol):
    """A document, as far as the report reads it; None or "" where a tag is not known."""

    @property
    def text(self) -> str: ...

    @property
    def source(self) -> str | None: ...

    @property
    def domain(self) -> str | None: ...

    @property
    def language(self) -> str | None: ...


@dataclass
class Figures:
    """Counts over the texts of one group."""

    num_texts: int = 0
    num_bytes: int = 0
    """UTF-8."""
    num_characters: int = 0
    num_words: int = 0
    """Parts between white space; says little about scripts that write none."""
    num_tokens: int = 0
    num_unknown: int = 0
    """Tokens that are the unknown token."""
    num_exact: int = 0
    """Texts with decode(encode(text)) == text."""

    def as_data(self) -> dict[str, float]:
        """The counts and the ratios that people compare."""
        tokens = max(self.num_tokens, 1)
        return {
            **vars(self),
            "bytes_per_token": self.num_bytes / tokens,
            "characters_per_token": self.num_characters / tokens,
            "tokens_per_word": self.num_tokens / max(self.num_words, 1),
            "words_per_token": self.num_words / tokens,
            "unknown_share": self.num_unknown / tokens,
            "round_trip_share": self.num_exact / max(self.num_texts, 1),
        }


@dataclass
class Report:
    """The figures of a tokenizer over texts: in total, by source, by domain and by language or script."""

    kind: str
    vocab_size: int
    total: Figures = field(default_factory=Figures)
    by: dict[str, dict[str, Figures]] = field(default_factory=lambda: {"source": {}, "domain": {}, "language": {}})
    num_used: int = 0
    """Tokens of the vocabulary that came at least once."""
    unknown_characters: dict[str, int] = field(default_factory=dict)
    """The most frequent characters that are unknown when they stand alone -> count."""
    difference: dict[str, str] | None = None
    """Where the first text that did not come back differs: `text` and `decoded`, around the place."""

    def as_data(self) -> dict[str, Any]:
        """Plain data: what `report.json` holds."""
        return {
            "kind": self.kind,
            "vocab_size": self.vocab_size,
            "vocabulary_used_share": self.num_used / self.vocab_size,
            "total": self.total.as_data(),
            **{
                f"by_{tag}": {name: figures.as_data() for name, figures in sorted(groups.items())}
                for tag, groups in self.by.items()
            },
            "unknown_characters": self.unknown_characters,
            "round_trip_difference": self.difference,
        }

    def save(self, folder: Path) -> Path:
        """Writes `report.json` into a tokenizer folder and returns its path."""
        write_json(folder / REPORT_FILE, self.as_data())
        return folder / REPORT_FILE

    def table(self) -> Table:
        """For the terminal: a row in total, and one for each source, domain and language where there are several."""
        title = f"{self.kind}, {self.vocab_size:,} tokens, {self.num_used / self.vocab_size:.0%} of them used"
        table = Table(title=title, title_justify="left")
        table.add_column("text")
        for name in ("texts", "bytes/token", "tokens/word", "unknown", "round trip"):
            table.add_column(name, justify="right")
        _add_row(table, "all", self.total)
        for tag, groups in self.by.items():
            for name, figures in sorted(groups.items()) if len(groups) > 1 else ():
                _add_row(table, f"{tag} {name}", figures)
        return table

    def remarks(self) -> list[str]:
        """What the table cannot show, one line each: an example that does not come back, unknown characters."""
        lines = []
        if self.difference is not None:
            shown = {key: json.dumps(text, ensure_ascii=False) for key, text in self.difference.items()}
            lines.append(f"not every text comes back: {shown['text']} is decoded as {shown['decoded']}")
        if self.unknown_characters:
            few = ", ".join(f"{character!r} ({count})" for character, count in self.unknown_characters.items())
            lines.append(f"unknown characters: {few}")
        return lines


def _add_row(table: Table, name: str, figures: Figures) -> None:
    data = figures.as_data()
    table.add_row(
        name,
        f"{figures.num_texts:,}",
        f"{data['bytes_per_token']:.2f}",
        f"{data['tokens_per_word']:.2f}",
        f"{data['unknown_share']:.2%}",
        f"{data['round_trip_share']:.1%}",
    )


def examine(tokenizer: Tokenizer, documents: Iterable[TextLike], max_documents: int | None = None) -> Report:
    """The report over documents, streamed; max_documents: only so many, the first. Texts alone: see `Text`."""
    report = Report(tokenizer.kind, tokenizer.vocab_size)
    used = np.zeros(tokenizer.vocab_size, dtype=bool)
    unknown: Counter[str] = Counter()
    documents = iter(documents) if max_documents is None else islice(documents, max_documents)
    for batch in _batched(documents):
        for document, ids in zip(batch, tokenizer.encode_batch([d.text for d in batch]), strict=True):
            used[ids] = True
            decoded = tokenizer.decode(ids)
            figures = _figures(document.text, ids, decoded, tokenizer.unk_id)
            for group in (report.total, *_groups(report, document)):
                for name, value in vars(figures).items():
                    setattr(group, name, getattr(group, name) + value)
            if decoded != document.text and report.difference is None:
                report.difference = _difference(document.text, decoded)
            if figures.num_unknown:
                unknown.update(_unknown_characters(tokenizer, document.text))
    report.num_used = int(used.sum())
    report.unknown_characters = dict(unknown.most_common(10))
    return report


@dataclass(frozen=True)
class Text:
    """A text without tags, for `examine`."""

    text: str
    source: str | None = None
    domain: str | None = None
    language: str | None = None


def _batched(documents: Iterator[TextLike]) -> Iterator[list[TextLike]]:
    while batch := list(islice(documents, _BATCH_TEXTS)):
        yield batch


def _figures(text: str, ids: np.ndarray, decoded: str, unk_id: int | None) -> Figures:
    return Figures(
        num_texts=1,
        num_bytes=len(text.encode()),
        num_characters=len(text),
        num_words=len(text.split()),
        num_tokens=len(ids),
        num_unknown=0 if unk_id is None else int((ids == unk_id).sum()),
        num_exact=int(decoded == text),
    )


def _groups(report: Report, document: TextLike) -> Iterator[Figures]:
    tags = {
        "source": document.source,
        "domain": document.domain,
        "language": document.language or script_of(document.text),
    }
    for tag, name in tags.items():
        if name:
            yield report.by[tag].setdefault(name, Figures())


def script_of(text: str) -> str:
    """The script of most letters at the start of a text in Unicode's words (`latin`, `cjk`, ...), or "none"."""
    letters = (c for c in text[:_SCRIPT_SAMPLE] if c.isalpha())
    scripts = Counter(unicodedata.name(c, "none").split()[0].split("-")[0].lower() for c in letters)
    return min(scripts, key=lambda script: (-scripts[script], script)) if scripts else "none"


def _difference(text: str, decoded: str) -> dict[str, str]:
    same = zip(text, decoded, strict=False)
    at = next((i for i, (a, b) in enumerate(same) if a != b), min(len(text), len(decoded)))
    around = slice(max(0, at - _EXAMPLE // 4), at + _EXAMPLE)
    return {"text": text[around], "decoded": decoded[around]}


def _unknown_characters(tokenizer: Tokenizer, text: str) -> Counter[str]:
    counts = Counter(text)
    alone = tokenizer.encode_batch(list(counts))
    return Counter({c: counts[c] for c, ids in zip(counts, alone, strict=True) if (ids == tokenizer.unk_id).any()})
