"""Lines that stand in many documents: menus, banners, licence footers, whatever a site puts around its texts.

After CCNet (Wenzek et al. 2020, section 3.1), which removes every paragraph that repeats anywhere. That also takes
refrains, headings, sentences that are quoted, and what near duplicates share. So here

- a line must stand in many documents that differ: documents with the same longest line are counted once;
- only lines at the start or the end of a document go, in a run from the edge that at most `jumps` other lines break;
- sentences, and a document's first line where it may be the title, need four times as many documents;
- short lines, headings of parts (`CHAPTER IV`), markup and program text stay.

White space, case and the years of a copyright do not tell lines apart. What single pages betray by
their words alone is the affair of the step `furniture`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from tempfile import TemporaryFile
from typing import IO, Annotated, Any

import numpy as np
from pydantic import Field

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.scripts import UNSPACED

REASONS = {"only_boilerplate": "all of its lines stand at the edges of many other documents; no text is left"}

_ZONE_LINES = 16
"""Lines that are not blank, from either end of a document, that are looked at."""
_FACTOR = 4
"""How many times as many documents sentences and first lines need."""
_FEWEST_LETTERS = 12
"""Below, a line says nothing: `II`, `The End`, `* * *`. A character of a script without spaces counts as two."""
_LONGEST_CHARACTERS = 400
_SHORT_CHARACTERS = 80
"""Lines that a run may jump over are shorter."""
_NUM_LARGEST = 30
_BUCKETS = 1 << 24
_PAIR = np.dtype([("line", "<u8"), ("document", "<u8")])
_PAIRS_AT_ONCE = 1 << 20

_COPYRIGHT = re.compile(r"(?:©|\(c\)|copyright)")
_YEARS = re.compile(r"\d{4}(?:\s*[-–]\s*\d{2,4})?")
_LETTERS = re.compile(r"[^\W\d_]")
_WIDE = re.compile(f"[{UNSPACED}]")
_SENTENCE = re.compile(rf"(?:\S+\s+){{2}}.*[.!?][\"'”’)»]*$|.*[{UNSPACED}].*[。！？][」』”’]*$")
# Indentation, markup, front matter and program text: equal first lines are what many source files have in common.
_STRUCTURE_STARTS = frozenset(" \t#=-*+~`<>@%&\\/|:.[({")
_STRUCTURE_ENDS = frozenset(";{}\\]`),:")
_PROGRAM = re.compile(
    r"(?:import|from|package|using|include|require|use|module|namespace|def|class|return|end|if|for|public|private)\b"
    r"|\d+[.)]\s"
)
_PROGRAM_SIGNS = re.compile(r"::|->|=>|==|__|\w\(\w| = ")
_PART = re.compile(
    r"(?:the )?(?:chapter|book|part|act|scene|canto|volume|vol|letter|section|appendix|stave|kapitel|buch|teil|akt"
    r"|szene|chapitre|livre|partie|acte|scène|capítulo|libro|parte|acto|capitolo|глава|часть|книга)\b.{0,40}$"
    r"|第.{1,8}[章回卷節节部集幕]",
    re.IGNORECASE,
)


class Config(PartConfig):
    """How many documents make a line boilerplate: a share of a small corpus, a number in a large one."""

    min_share: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the documents in which a line must stand, in (0, 1], where that is between the two bounds below."""
    min_documents: Annotated[int, Field(ge=2)] = 3
    """Fewest documents, >= 2, however small the corpus."""
    enough_documents: Annotated[int, Field(ge=2)] = 20
    """As many documents are enough, >= 2, however large the corpus: a line of one site is a small share of a crawl."""
    jumps: Annotated[int, Field(ge=0)] = 1
    """Other lines, short ones, that may stand between removed lines and the edge of the document, >= 0. They stay."""

    def build(self) -> "Boilerplate":
        return Boilerplate(self)


class Boilerplate:
    """Counts lines over the corpus, then takes them from the documents."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._counts: dict[int, int] = {}
        self._needed = 0
        self._removed: Counter[str] = Counter()

    def signature(self, document: Document) -> bytes:
        """[1 + lines] numbers of 8 bytes: the longest line's, then those of the lines that may be boilerplate."""
        lines = [line for line in document.text.split("\n") if line and not line.isspace()]
        if not lines:
            return b""
        longest = max(lines, key=lambda line: (len(line), line))
        zone = lines if len(lines) <= 2 * _ZONE_LINES else lines[:_ZONE_LINES] + lines[-_ZONE_LINES:]
        return b"".join([_key(longest), *{_key(line): None for line in zone if _may_go(line)}])

    def survey(self, signatures: Iterator[bytes]) -> None:
        with TemporaryFile(buffering=1 << 20) as file:
            buckets, num_documents = np.zeros(_BUCKETS, np.uint32), 0
            pending: list[bytes] = []
            num_pending = 0
            for signature in signatures:
                num_documents += 1
                if len(signature) > 8:
                    pending.append(signature)
                    num_pending += len(signature)
                if num_pending >= 8 * _PAIRS_AT_ONCE:
                    _write(pending, file, buckets)
                    pending, num_pending = [], 0
            _write(pending, file, buckets)
            config = self._config
            share = math.ceil(config.min_share * num_documents)
            self._needed = max(config.min_documents, min(config.enough_documents, share))
            self._counts = _counts(_crowded(file, buckets, self._needed), self._needed)

    def decide(self, number: int, document: Document) -> Document | Drop:
        lines = document.text.split("\n")
        full = [place for place, line in enumerate(lines) if line and not line.isspace()]
        if not self._counts or not full:
            return document
        removed = self._run(lines, full[:_ZONE_LINES], full)
        removed |= self._run(lines, full[: -_ZONE_LINES - 1 : -1], full)
        if not removed:
            return document
        self._removed.update(lines[place].strip() for place in removed)
        if len(removed) == len(full):
            return Drop("only_boilerplate", f"{len(removed)} lines, in {self._needed} documents or more each")
        text = "\n".join(line for place, line in enumerate(lines) if place not in removed)
        return document.with_text(text.strip("\n"), boilerplate_lines=len(removed))

    def _run(self, lines: list[str], places: list[int], full: list[int]) -> set[int]:
        """Places of the lines that go, from one edge inwards. full: the places of all lines that are not blank."""
        removed, jumps = set(), 0
        for place in places:
            needed = self._needed
            # The first line may be the title. A menu's first line is followed by its second.
            if place == full[0] and not (len(full) > 1 and self._is_known(lines[full[1]], needed)):
                needed *= _FACTOR
            if self._is_known(lines[place], needed):
                removed.add(place)
            elif jumps < self._config.jumps and len(lines[place]) < _SHORT_CHARACTERS:
                jumps += 1
            else:
                break
        return removed

    def _is_known(self, line: str, needed: int) -> bool:
        """Whether a line stands in enough documents."""
        if not _may_go(line):
            return False
        count = self._counts.get(int.from_bytes(_key(line), "little"), 0)
        return count >= needed and (count >= _FACTOR * self._needed or not _SENTENCE.match(line.strip()))

    def summary(self) -> dict[str, Any]:
        """In how many documents a line had to stand, and the lines that were taken most often."""
        most = sorted(self._removed.items(), key=lambda item: (-item[1], item[0]))[:_NUM_LARGEST]
        return {
            "needed_documents": self._needed,
            "num_removed_lines": self._removed.total(),
            "lines": [{"line": line, "num_removed": count} for line, count in most],
        }


def _key(line: str) -> bytes:
    """8 bytes that are equal for lines that differ in case and white space only, or in the years of a copyright."""
    folded = " ".join(line.casefold().split())
    if _COPYRIGHT.match(folded):
        folded = _YEARS.sub("0", folded)
    return blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _may_go(line: str) -> bool:
    """Whether a line could be boilerplate at all."""
    if len(line) > _LONGEST_CHARACTERS or line[0] in _STRUCTURE_STARTS or line[-1] in _STRUCTURE_ENDS:
        return False
    if len(line) < 40 and len(_LETTERS.findall(line)) + len(_WIDE.findall(line)) < _FEWEST_LETTERS:
        return False
    return not (_PROGRAM.match(line) or _PROGRAM_SIGNS.search(line) or _PART.match(line))


def _write(signatures: list[bytes], file: IO[bytes], buckets: np.ndarray) -> None:
    """(line, document) pairs to the file, lines counted by bucket."""
    if not signatures:
        return
    numbers = np.frombuffer(b"".join(signatures), "<u8")
    lengths = np.array([len(signature) // 8 for signature in signatures])
    starts = np.cumsum(lengths) - lengths
    is_line = np.ones(len(numbers), bool)
    is_line[starts] = False
    pairs = np.empty(len(numbers) - len(lengths), _PAIR)
    pairs["line"] = numbers[is_line]
    pairs["document"] = np.repeat(numbers[starts], lengths - 1)
    np.add.at(buckets, pairs["line"] % _BUCKETS, 1)
    file.write(pairs.tobytes())


def _crowded(file: IO[bytes], buckets: np.ndarray, needed: int) -> np.ndarray:
    """The pairs whose line may stand in `needed` documents: those in buckets that hold as many."""
    file.seek(0)
    parts = [np.zeros(0, _PAIR)]
    while data := file.read(_PAIR.itemsize * _PAIRS_AT_ONCE):
        pairs = np.frombuffer(data, _PAIR)
        parts.append(pairs[buckets[pairs["line"] % _BUCKETS] >= needed])
    return np.concatenate(parts)


def _counts(pairs: np.ndarray, needed: int) -> dict[int, int]:
    """Line -> in how many documents that differ, of lines in at least `needed`."""
    pairs = np.unique(pairs)
    lines, counts = np.unique(pairs["line"], return_counts=True)
    enough = counts >= needed
    return dict(zip(lines[enough].tolist(), counts[enough].tolist(), strict=True))
