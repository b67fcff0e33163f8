"""One form for equal text: NFC, line ends as `\\n`, no control characters.

NFC is Unicode Standard Annex #15. Control characters are general category Cc (C0, DEL, C1) except tab and line feed.
"""

import re
from dataclasses import dataclass
from typing import Literal
from unicodedata import normalize

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop

REASONS: dict[str, str] = {}
_LINE_END = re.compile("\r\n?|\x85|\u2028")
_PARAGRAPH_END = "\u2029"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Config(PartConfig):
    """Changes text, drops nothing."""

    form: Literal["NFC", "NFKC"] = "NFC"
    """Normal form. NFKC also folds full-width letters, ligatures and superscripts, which changes what is written."""

    def build(self) -> "Unicode":
        return Unicode(self.form)


@dataclass(frozen=True)
class Unicode:
    form: Literal["NFC", "NFKC"]

    def apply(self, document: Document) -> Document | Drop:
        text = normalize(self.form, document.text)
        text = _LINE_END.sub("\n", text).replace(_PARAGRAPH_END, "\n\n")
        return document.with_text(_CONTROL.sub("", text))
