"""White space that says nothing: blanks at line ends, runs of blank lines, exotic spaces.

The space characters are general category Zs of the Unicode Standard (section 6.2, table 6-2) but two that are written
on purpose: the ideographic space U+3000, which indents Chinese and Japanese paragraphs, and the Ogham space mark.
Indentation, tabs and spaces inside lines stay, so code, tables and verse keep their shape.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop

REASONS: dict[str, str] = {}

_UNUSUAL_SPACE = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]")
_LINE_END_BLANKS = re.compile("(?<![ \t\u3000])[ \t\u3000]+(?=\n)")  # from the run's start: linear, however long
_ENDS = (" \n", "\t\n", "\u3000\n")


class Config(PartConfig):
    """Changes text, drops nothing."""

    max_blank_lines: Annotated[int, Field(ge=0)] = 2
    """Most blank lines in a row, >= 0."""
    plain_spaces: bool = True
    """Whether no-break, thin and other spaces of a set width become plain ones."""

    def build(self) -> "Whitespace":
        return Whitespace(self.max_blank_lines, self.plain_spaces)


@dataclass(frozen=True)
class Whitespace:
    max_blank_lines: int
    plain_spaces: bool

    def apply(self, document: Document) -> Document | Drop:
        text = document.text
        num_spaces = num_ends = num_runs = 0
        if self.plain_spaces and not text.isascii():
            text, num_spaces = _UNUSUAL_SPACE.subn(" ", text)
        if any(end in text for end in _ENDS):
            text, num_ends = _LINE_END_BLANKS.subn("", text)
        most = "\n" * (self.max_blank_lines + 1)
        if most + "\n" in text:
            text, num_runs = re.subn(most + "\n+", most, text)
        return document.with_text(text, unusual_space=num_spaces, line_end_blanks=num_ends, blank_lines=num_runs)
