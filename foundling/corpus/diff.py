"""What changed between two short texts, piece by piece, for people to see."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal
from unicodedata import category

Piece = tuple[Literal["same", "gone", "new"], str]

_TOKEN = re.compile(r"[^\W_]+|\s|.", re.DOTALL)
_CUT = "…"
_ALIKE = 0.85
"""Similarity of two texts above which single letters are compared."""
_SIGNS = {"\n": "⏎\n", "\t": "⇥\t", " ": "␣", "\u00a0": "⍽", "\u3000": "□"}


def pieces(before: str, after: str) -> list[Piece]:
    """Both texts as one row of pieces: what stayed, what went, what came. Meant for excerpts of a few hundred letters.

    Excerpts that end with `…` were cut there: differences at the very end say only where the cut was, and are left out.
    """
    cut = before.endswith(_CUT) or after.endswith(_CUT)
    old: Sequence[str] = before.removesuffix(_CUT)
    new: Sequence[str] = after.removesuffix(_CUT)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if matcher.ratio() < _ALIKE:  # letters that happen to be the same tell nothing: whole words are compared
        old, new = _TOKEN.findall(str(old)), _TOKEN.findall(str(new))
        matcher = SequenceMatcher(None, old, new, autojunk=False)
    found: list[Piece] = []
    for what, i, j, k, m in matcher.get_opcodes():
        if what == "equal":
            found.append(("same", "".join(old[i:j])))
            continue
        if i < j:
            found.append(("gone", "".join(old[i:j])))
        if k < m:
            found.append(("new", "".join(new[k:m])))
    if cut:
        trimmed = list(found)
        while trimmed and trimmed[-1][0] != "same":
            trimmed.pop()
        if any(what != "same" for what, _ in trimmed):
            found = trimmed
        found.append(("same", _CUT))
    return found


def visible(text: str) -> str:
    """A changed piece with signs for what cannot be seen: blanks, line ends, control and format characters."""
    if text.strip() and not any(category(letter) in ("Cc", "Cf", "Co", "Cn") for letter in text):
        return text
    blank = not text.strip()
    return "".join(_sign(letter, blank) for letter in text)


def _sign(letter: str, blank: bool) -> str:
    if blank and letter in _SIGNS:
        return _SIGNS[letter]
    if letter not in "\n\t" and category(letter) in ("Cc", "Cf", "Co", "Cn"):
        return f"[U+{ord(letter):04X}]"
    return letter
