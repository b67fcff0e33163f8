"""Near duplicates by MinHash and banding: of each cluster of documents that are nearly the same, one stays.

Signatures are of shingles, as in Broder 1997 (On the resemblance and containment of documents): runs of words, or of
characters where most of the text is in a script without spaces. With b bands of r rows, documents of Jaccard
similarity J are brought together with probability 1 - (1 - J^r)^b. They are linked where the signatures' estimate of J
does not speak against it: `check` lies so far below the threshold that one in a hundred of the pairs at the threshold
is lost by it. `foundling.corpus.minhash` has the laws, and `benchmarks/near_duplicates.py` holds them against every
pair of 20,000 real paragraphs. Links join to clusters (union-find) over the whole corpus.

Where we differ from the usual 5-grams (Lee et al. 2022, Deduplicating training data makes language models better,
section 4.2; Penedo et al. 2024, FineWeb, section 3.4): runs of two words. A changed word breaks five 5-grams, so four
changed words of seventy bring a pair to J = 0.55, where leaflets stand that share only a frame; of 2-grams the same
change leaves J = 0.79, and the leaflets stay below 0.7.
"""

import math
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from foundling.core.config import PartConfig
from foundling.corpus.clusters import Hashed, Numbers, Spool, clusters, groups, similarity
from foundling.corpus.document import Document, Drop
from foundling.corpus.folder import open_corpus
from foundling.corpus.minhash import MinHash, bands_and_rows
from foundling.corpus.names import Names
from foundling.corpus.shingles import shingles_of, tokens_of

REASONS = {
    "near_duplicate": "nearly the same text as a document that stays",
    "near_duplicate_elsewhere": "nearly the same text as a document of a corpus given as `against`",
}
_ERRORS = 2.33
"""One in a hundred draws of a normal distribution lies further below its mean."""
_NUM_LARGEST = 20
"""Clusters that the summary tells of."""
_NUM_EXAMPLES = 5
"""Dropped ids that it gives of each."""
_SAMPLE_CHARACTERS = 240
_BUFFER_BYTES = 1 << 20


class Config(PartConfig):
    """What near is, and what stays."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Jaccard similarity from which on two documents are near duplicates, in (0, 1]. Where single words are changed
    here and there, 0.75 is about one in fourteen."""
    check: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least estimated similarity of documents that a band brought together, in [0, 1]; None: 2.33 standard errors below
    the threshold, 0.687 as things are set here. 0: the bands alone decide."""
    shingle_words: Annotated[int, Field(ge=1)] = 2
    """Words of a shingle, >= 1."""
    shingle_characters: Annotated[int, Field(ge=1)] = 3
    """Characters of a shingle where most of the text is in a script without spaces, >= 1."""
    num_hashes: Annotated[int, Field(ge=1, le=4096)] = 256
    """Hashes of a signature, 2 bytes each on disk; the estimate's standard error is at most 0.5 / sqrt(num_hashes)."""
    bands: Annotated[int, Field(ge=1)] | None = None
    """Parts of a signature, with `rows`; None for both: the steepest curve that brings together 0.9 of the
    pairs at the threshold."""
    rows: Annotated[int, Field(ge=1)] | None = None
    """Hashes of a band that must all agree, with `bands`; bands * rows is at most num_hashes."""
    keep: Literal["first", "longest"] = "first"
    """Which document of a cluster stays: the first in the corpus's order, or the one with most characters."""
    chained: bool = True
    """Whether documents that are linked through others only are one cluster. False: each document that goes is near
    to one that stays, so a cluster may keep several."""
    against: list[str] = Field(default_factory=list)
    """Other corpus folders: documents that have a near duplicate there go, too."""

    @model_validator(mode="after")
    def _bands_and_rows(self) -> "Config":
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows go together: set both or neither")
        if self.bands is not None and self.rows is not None and self.bands * self.rows > self.num_hashes:
            raise ValueError(f"bands * rows must be at most num_hashes ({self.num_hashes})")
        return self

    def input_hashes(self) -> dict[str, str]:
        return {f"near.against:{folder}": open_corpus(Path(folder)).key for folder in self.against}

    def build(self) -> "Near":
        return Near(self)


class Near:
    """Signatures in parallel; clusters once all are there; then each document's answer is a look into an array."""

    def __init__(self, config: Config) -> None:
        if config.bands is not None and config.rows is not None:
            self.bands, self.rows = config.bands, config.rows
        else:
            self.bands, self.rows = bands_and_rows(config.threshold, config.num_hashes)
        error = math.sqrt(config.threshold * (1 - config.threshold) / (self.bands * self.rows))
        self.check = max(0.0, config.threshold - _ERRORS * error) if config.check is None else config.check
        self._config = config
        self._hashes = MinHash(self.bands * self.rows)
        self._clusters = _Clusters(0, 0)
        self._samples: dict[int, str] = {}

    def signature(self, document: Document) -> bytes:
        """Number of bytes of the hashes (2), the hashes (none of a text without words), characters (4), id."""
        tokens = tokens_of(document.text)
        length = self._config.shingle_characters if tokens.is_unspaced else self._config.shingle_words
        hashes = self._hashes.signature(shingles_of(tokens.hashes, length)).tobytes() if len(tokens) else b""
        name = document.id.encode("utf-8", "surrogatepass")
        return len(hashes).to_bytes(2, "little") + hashes + len(document.text).to_bytes(4, "little") + name

    def survey(self, signatures: Iterator[bytes]) -> None:
        lengths = array("L")
        with TemporaryFile(buffering=_BUFFER_BYTES) as file:
            spool, names = Spool(file, self.bands * self.rows), Names()

            def take(signature: bytes) -> None:
                end = 2 + int.from_bytes(signature[:2], "little")
                spool.append(signature[2:end])
                lengths.append(int.from_bytes(signature[end : end + 4], "little"))
                names.append(signature[end + 4 :])

            for signature in self._elsewhere():
                take(signature)
            num_others = len(lengths)
            for signature in signatures:
                take(signature)
            hashes, numbers = spool.read()
            roots = clusters(hashes, numbers, self.bands, self.rows, self.check)
            self._clusters = self._settled(hashes, roots, np.array(lengths, np.int64), num_others)
            self._clusters.name(names)

    def _elsewhere(self) -> Iterator[bytes]:
        for folder in self._config.against:
            for document in open_corpus(Path(folder)).documents():
                yield self.signature(replace(document, id=f"{folder}: {document.id}"))

    def _settled(self, hashes: Hashed, roots: Numbers, lengths: Numbers, num_others: int) -> "_Clusters":
        """Who stays of each cluster. The first `num_others` documents are those of other corpora: they always do."""
        result = _Clusters(len(roots), num_others)
        for members in groups(roots):
            others, waiting = members[members < num_others], members[members >= num_others]
            for other in others.tolist():
                waiting = self._give(result, hashes, other, waiting)
            while len(waiting):
                kept = int(waiting[0] if self._config.keep == "first" else waiting[np.argmax(lengths[waiting])])
                waiting = self._give(result, hashes, kept, waiting[waiting != kept])
        return result

    def _give(self, result: "_Clusters", hashes: Hashed, kept: int, waiting: Numbers) -> Numbers:
        """Lets go of the waiting documents that belong to `kept`; the others wait on."""
        if not len(waiting):
            return waiting
        nearness = similarity(hashes, kept, waiting)
        goes = np.full(len(waiting), True) if self._config.chained else nearness >= self.check
        result.keepers[waiting[goes]] = kept
        result.nearness[waiting[goes]] = nearness[goes]
        return waiting[~goes]

    def decide(self, number: int, document: Document) -> Document | Drop:
        found = self._clusters
        number += found.num_others
        keeper = int(found.keepers[number])
        if keeper >= 0:
            reason = "near_duplicate" if keeper >= found.num_others else "near_duplicate_elsewhere"
            nearness = found.nearness[number]
            how = "" if nearness >= self.check else ", through others"
            return Drop(reason, f"like {found.names[keeper]}, Jaccard about {nearness:.2f}{how}")
        if number not in found.num_duplicates:
            return document
        if number in found.largest:
            self._samples[number] = document.text[:_SAMPLE_CHARACTERS]
        return replace(document, meta={**document.meta, "duplicates": found.num_duplicates[number]})

    def summary(self) -> dict[str, Any]:
        """Bands, rows, check and the largest clusters: who stays, how many went, ids of some, the start of the text."""
        found = self._clusters
        return {
            "bands": self.bands,
            "rows": self.rows,
            "check": round(self.check, 4),
            "num_clusters": len(found.num_duplicates),
            "num_duplicates": sum(found.num_duplicates.values()),
            "largest_clusters": [
                {
                    "kept": found.names[kept],
                    "num_duplicates": found.num_duplicates[kept],
                    "examples": examples,
                    "sample": self._samples.get(kept, ""),
                }
                for kept, examples in found.largest.items()
            ],
        }


class _Clusters:
    """What the survey found. Documents are numbered with those of other corpora first."""

    def __init__(self, num_documents: int, num_others: int) -> None:
        self.num_others = num_others
        self.keepers: Numbers = np.full(num_documents, -1)
        """Who stays in a document's stead; -1: it stays itself."""
        self.nearness = np.zeros(num_documents, np.float32)
        """The estimated similarity to who stays."""
        self.num_duplicates: dict[int, int] = {}
        """Of this corpus's documents that stay: how many went."""
        self.largest: dict[int, list[str]] = {}
        """Of the largest clusters' documents that stay: some ids of those that went."""
        self.names: dict[int, str] = {}
        """Ids of all that stay in another's stead."""

    def name(self, names: Names) -> None:
        keepers, counts = np.unique(self.keepers[self.keepers >= 0], return_counts=True)
        self.names = {keeper: names.read(keeper) for keeper in keepers.tolist()}
        own = keepers >= self.num_others
        self.num_duplicates = dict(zip(keepers[own].tolist(), counts[own].tolist(), strict=True))
        by_size = sorted(self.num_duplicates, key=lambda keeper: (-self.num_duplicates[keeper], keeper))
        for keeper in by_size[:_NUM_LARGEST]:
            gone = np.flatnonzero(self.keepers == keeper)[:_NUM_EXAMPLES]
            self.largest[keeper] = [names.read(number) for number in gone.tolist()]
