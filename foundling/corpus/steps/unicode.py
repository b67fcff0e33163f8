"""One form for equal text: NFC, line ends as `\\n`, and nothing in it that nobody sees.

NFC is Unicode Standard Annex #15. What goes has no shape and no meaning where it stands (The Unicode Standard, sections
23.1 to 23.8; Unicode Technical Report #36 for bidirectional controls and tag characters):

- control characters (general category Cc but tab and line feed) and whole ANSI escape sequences (ECMA-48, 5.4);
- byte order marks, word joiners, interlinear anchors, noncharacters, deprecated format characters, soft hyphens;
- zero-width spaces, but not between Thai, Lao, Khmer, Myanmar or Tibetan letters, where they part words;
- joiners and non-joiners, but not beside a letter of a script that needs them (Arabic, Indic, ...) nor in emoji;
- bidirectional controls in texts without any right-to-left letter;
- tag characters outside the flags of emoji, and all variation selectors after the first;
- private-use characters, unless they are to stay: without their font they say nothing. Between Han characters one
  stays, because there it stands for a rare character, and a verse would lose a syllable;
- all but one of a run of U+FFFD. Surrogate pairs become their character, lone surrogates U+FFFD.

Unusual spaces are the business of `whitespace`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal
from unicodedata import normalize

from pydantic import Field

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.scripts import HAN

REASONS = {
    "undecodable": "a larger share of the characters than max_replacement_share is U+FFFD: bytes lost in decoding"
}

_SUSPECT = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060\u2066-\u206f"
    "\ud800-\uf8ff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\ufff9-\ufffd\ufffe\uffff\U000e0000-\U0010ffff]"
)
"""Whatever any rule below looks for: most texts have none of it."""

_PARTED_BY_ZERO_WIDTH = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
_NO_JOINERS = "\\x00-\u058f\u10a0-\u10ff\u1100-\u11ff\u1d00-\u200b\u200e-\u20cf\u2e80-\ua4cf\uac00-\ud7ff\uff00-\uffef"
"""Latin, Greek, Cyrillic, Georgian, Han, kana, Hangul, digits, punctuation and spaces: nothing here joins."""
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
_SURROGATES = re.compile("[\ud800-\udfff]+")
_IN_HAN_TEXT = HAN + "\u3001-\u3003\u3008-\u3011\uff01-\uff1f"
_PRIVATE_USE = "[\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd]"
_ICONS = re.compile(f"(?<![{_IN_HAN_TEXT}]){_PRIVATE_USE}+|{_PRIVATE_USE}+(?![{_IN_HAN_TEXT}]|{_PRIVATE_USE})")
_VARIATION = "\ufe00-\ufe0f\U000e0100-\U000e01ef"

_ALWAYS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("escape_sequence", re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]"), ""),
    ("control", re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"), ""),
    ("byte_order_mark", re.compile("\ufeff"), ""),
    ("soft_hyphen", re.compile("\u00ad"), ""),
    ("zero_width", re.compile(f"(?<![{_PARTED_BY_ZERO_WIDTH}])\u200b+|\u200b+(?![\u200b{_PARTED_BY_ZERO_WIDTH}])"), ""),
    ("zero_width", re.compile("[\u2060\u206a-\u206f\ufff9-\ufffc]+"), ""),
    ("zero_width", re.compile(f"(?<![^{_NO_JOINERS}])[\u200c\u200d]+(?![^{_NO_JOINERS}])"), ""),
    ("noncharacter", re.compile("[\ufdd0-\ufdef\ufffe\uffff]+"), ""),
    ("tag_character", re.compile("(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"), ""),
    ("variation_selector", re.compile(f"(?<=[{_VARIATION}])[{_VARIATION}]+"), ""),
    ("replacement", re.compile("(?<=\ufffd)\ufffd+"), ""),
)
_BROKEN_LINE_END = re.compile(r"\r+\n")
_STRAY_RETURN = re.compile(r"\r(?= \S)")  # inside a line, before its blank; a Mac's line end has none after it
_LINE_END = re.compile("[\r\x85\u2028]")
_BREAK_BETWEEN_WORDS = re.compile(r"(?<=\S)[\x0b\x0c](?=\S)")
_BREAK = re.compile(r"[\x0b\x0c]+")
_PARAGRAPH_END = "\u2029"


class Config(PartConfig):
    """Changes text; drops only what was lost in decoding."""

    form: Literal["NFC", "NFKC"] = "NFC"
    """Normal form. NFKC also folds full-width letters, ligatures and superscripts, which changes what is written."""
    private_use: Literal["remove", "keep"] = "remove"
    """What to do with private-use characters outside Han text, most of them icons of a web page's own font."""
    max_replacement_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest share of U+FFFD among the characters of a text to keep, in [0, 1]."""

    def build(self) -> "Unicode":
        return Unicode(self.form, self.private_use == "keep", self.max_replacement_share)


@dataclass(frozen=True)
class Unicode:
    form: Literal["NFC", "NFKC"]
    keep_private_use: bool
    max_replacement_share: float

    def apply(self, document: Document) -> Document | Drop:
        text = document.text
        if _SUSPECT.search(text) is None:
            return document.with_text(normalize(self.form, text))
        num_replaced = text.count("\ufffd")
        if num_replaced > self.max_replacement_share * len(text):
            share = num_replaced / len(text)
            return Drop("undecodable", f"share of U+FFFD {share:.2f} > {self.max_replacement_share}")
        found: dict[str, int] = {}
        text = _counted(_SURROGATES, _joined, text, "surrogate", found)
        for name, pattern, replacement in _ALWAYS:
            text = _counted(pattern, replacement, text, name, found)
        if not self.keep_private_use:
            text = _counted(_ICONS, "", text, "private_use", found)
        if _RIGHT_TO_LEFT.search(text) is None:
            text = _counted(_BIDI, "", text, "bidi_control", found)
        return document.with_text(normalize(self.form, _with_line_feeds(text, found)), **found)


def _counted(
    pattern: re.Pattern[str],
    replacement: str | Callable[[re.Match[str]], str],
    text: str,
    name: str,
    found: dict[str, int],
) -> str:
    text, num_found = pattern.subn(replacement, text)
    if num_found:
        found[name] = found.get(name, 0) + num_found
    return text


def _joined(surrogates: re.Match[str]) -> str:
    return surrogates[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _with_line_feeds(text: str, found: dict[str, int]) -> str:
    text = _BROKEN_LINE_END.sub("\n", text)
    text = _counted(_STRAY_RETURN, "", text, "control", found)
    text = _LINE_END.sub("\n", text).replace(_PARAGRAPH_END, "\n\n")
    text = _counted(_BREAK_BETWEEN_WORDS, "\n", text, "control", found)
    return _counted(_BREAK, "", text, "control", found)
