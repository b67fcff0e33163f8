"""Tells each document's language, and keeps the wanted ones where some are named.

`corpus/identify.py` says how, and has the sources. `Document.language` gets the ISO 639-1 code; for Chinese,
`meta["script"]` says `Hans` (simplified) or `Hant` (traditional), and `keep` may ask for `zh-Hans` or `zh-Hant` alone.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, field_validator

from foundling.core.config import PartConfig
from foundling.core.registry import nearest
from foundling.corpus.document import Document, Drop
from foundling.corpus.identify import identify, known_languages

REASONS = {
    "other_language": "its language is none of those to keep",
    "unsure_language": "no language is as probable as min_probability, and only some are to be kept",
}


class Config(PartConfig):
    """Tags by default; drops only where `keep` is set."""

    keep: list[str] | None = None
    """ISO 639-1 codes of the languages to keep, such as [en, zh]; None keeps all. `zh-Hans` and `zh-Hant` are known."""
    min_probability: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Least probability to tell a language, in [0, 1]; below, it stays untold."""
    overwrite: bool = False
    """Whether to look at documents too that came with a language."""

    @field_validator("keep")
    @classmethod
    def _known(cls, keep: list[str] | None) -> list[str] | None:
        known = [*known_languages(), "zh-Hans", "zh-Hant"]
        for language in keep or ():
            if language not in known:
                near = nearest(language, known)
                hint = f"; did you mean {near!r}?" if near else f"; known: {', '.join(known)}"
                raise ValueError(f"keep must name languages by their ISO 639 codes; got {language!r}{hint}")
        if keep == []:
            raise ValueError("keep must name a language; leave it out to keep all")
        return keep

    def build(self) -> "Language":
        return Language(None if self.keep is None else frozenset(self.keep), self.min_probability, self.overwrite)


@dataclass(frozen=True)
class Language:
    keep: frozenset[str] | None
    min_probability: float
    overwrite: bool

    def apply(self, document: Document) -> Document | Drop:
        if document.language is not None and not self.overwrite:
            script = document.meta.get("script")
            return self._kept(document, document.language, str(script), "as it came")
        found = identify(document.text)
        if found.language is None or found.probability < self.min_probability:
            if self.keep is None:
                return document if document.language is None else replace(document, language=None)
            guess = f"{found.language or 'no letters'} {found.probability:.2f} < {self.min_probability}"
            return Drop("unsure_language", guess)
        meta = document.meta if found.script is None else {**document.meta, "script": found.script}
        tagged = replace(document, language=found.language, meta=meta)
        return self._kept(tagged, found.language, str(found.script), f"{found.probability:.2f}")

    def _kept(self, document: Document, language: str, script: str, detail: str) -> Document | Drop:
        if self.keep is None or language in self.keep or f"{language}-{script}" in self.keep:
            return document
        return Drop("other_language", f"{language} {detail}")
