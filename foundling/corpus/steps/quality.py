"""Documents that are no running text: too few words, link lists, menus, tables of symbols, filler, templates.

Rules after Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A1.1), C4 (Raffel et al. 2020, section 2.2) and
FineWeb (Penedo et al. 2024, arXiv:2406.17557, section 3.6). Where we differ:

- Every threshold may differ by script. Gopher's stop words are left out, since they ask for English; and so is C4's
  curly bracket, which drops all code.
- The defaults are those that good text survives: books, news, speeches, technical proposals with their code and tables,
  leaflets and poems. Gopher's own are stricter: `min_words: 50, min_mean_word: 3, max_mean_word: 10, max_symbols: 0.1,
  min_words_with_letters: 0.8`.
- Dashes begin the lines of a dialogue in many languages. So a line with a dash that ends as a sentence does is none of
  a list.
- FineWeb drops a page that has few full stops, or mostly short lines. Poems, lyrics and source code have either, so a
  page must have both, and hardly a word a line (`menu`).
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import ascii_letters
from typing import Annotated

import yaml
from pydantic import Field

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.scripts import UNSPACED, ByScript, Script, script_of, within, words_of

REASONS = {
    "too_few_words": "fewer words than min_words (in Chinese and the like: characters)",
    "too_many_words": "more words than max_words",
    "links": "a larger share of its characters stands in web addresses than max_links",
    "few_letters": "a smaller share of its characters are letters than min_letters: numbers, tables, symbols",
    "few_words_with_letters": "a smaller share of its words hold a letter than min_words_with_letters",
    "short_words": "its words are shorter on average than min_mean_word: spaced letters, broken text",
    "long_words": "its words are longer on average than max_mean_word: encoded data, text without spaces",
    "symbols": "more hashtags and ellipses for each word than max_symbols: tags, teasers",
    "bullets": "a larger share of its lines begin with a bullet than max_bullet_lines",
    "ellipses": "a larger share of its lines break off with an ellipsis than max_ellipsis_lines: teasers",
    "menu": "its lines hold hardly a word, are short and end without punctuation: menus, word lists",
    "lorem_ipsum": "a larger share of its words are lorem ipsum's than max_filler, where that phrase stands in it",
    "template": "a larger share of its lines hold an unfilled template's field than max_template_lines",
}

# FineWeb section 3.6: lines shorter than 30 characters, and at most 0.12 of the lines ended by punctuation.
_SHORT_LINE_CHARACTERS, _SHORT_LINES, _ENDED_LINES = 30, 0.67, 0.12
_FEWEST_LINES = 4
"""Lines below which a share of lines says nothing."""
_FEWEST_MENU_LINES = 8

_HASHTAG = re.compile(r"#\w")  # Gopher counts every "#", which takes program text with comments
_LINK = re.compile(r"[A-Za-z]+://[!-~]+|www\.[!-~]+")
_ASCII_LETTERS = ascii_letters.encode()
_UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")
_NO_LETTER = re.compile(r"[\W\d_]+")
_LETTER = re.compile(r"[^\W\d_]")
_BULLETS = (*"•‣●▪◦∙·○■□◆►▶➤✓✔", "* ", "+ ")
_DASHES = ("- ", "– ", "— ")
_SPOKEN = re.compile(r"[.!?…。！？][\"'”’»」』)]*$")
_ELLIPSES = tuple(dots + end for dots in ("...", "…") for end in ("", ")", "]", "”", "»", '"', "[…]", "[...]"))
_ENDED = tuple(".!?;:…。！？；：」』）)\"”’'،؟۔।॥")
_STUBS = (": ...", ") ...", "{ ...", "# ...", " …")  # of program text
# {{ name }}, {% if %}, ${name}, <%= name %>, [[name]], %%NAME%%, [insert text here], [Your Name]
_TEMPLATE = re.compile(
    r"\{\{[^{}\n]{1,60}\}\}|\{%[^%\n]{1,60}%\}|<%[^%\n]{1,80}%>|\$\{[\w.]{1,40}\}|%%\w{1,40}%%|\[\[\w[\w .-]{0,40}\]\]|"
    r"\[(?:insert|your|company|enter|placeholder)\b[^\]\n]{0,40}\]",
    re.IGNORECASE,
)
_LOREM = re.compile("lorem ipsum", re.IGNORECASE)

Share = Annotated[ByScript, within(0, 1)]


class Config(PartConfig):
    """Thresholds, by script where scripts differ. A threshold of null is a rule that is off."""

    min_words: Annotated[ByScript, within(0)] = ByScript(latin=8, cjk=8, other=6)
    """Fewest words; where no spaces stand between words, each letter is one."""
    max_words: Annotated[ByScript, within(1)] = ByScript(latin=None, cjk=None, other=None)
    """Most words, counted as for min_words."""
    max_links: Share = ByScript(latin=0.6, cjk=0.6, other=0.6)
    """Largest share of characters in web addresses, white space not counted, in [0, 1]."""
    min_letters: Share = ByScript(latin=0.4, cjk=0.4, other=0.4)
    """Smallest share of letters among the characters, white space not counted, in [0, 1]. PEPs with many tables have
    0.49, poems in old editions with their gaps 0.42."""
    min_words_with_letters: Share = ByScript(latin=0.5, cjk=None, other=0.5)
    """Smallest share of words (what stands between white space) that hold a letter, in [0, 1]."""
    min_mean_word: Annotated[ByScript, within(0)] = ByScript(latin=2.5, cjk=None, other=1.8)
    """Smallest mean length of what stands between white space, in characters. Vietnamese has 3.3, Korean 3."""
    max_mean_word: Annotated[ByScript, within(1)] = ByScript(latin=16, cjk=None, other=16)
    """Largest mean length of what stands between white space, in characters, web addresses not counted. Gopher
    has 10; program text reaches 14."""
    max_symbols: Annotated[ByScript, within(0)] = ByScript(latin=0.3, cjk=0.15, other=0.3)
    """Most hashtags and ellipses for each word."""
    max_bullet_lines: Share = ByScript(latin=0.9, cjk=0.9, other=0.9)
    """Largest share of lines that begin with a bullet, in [0, 1]; sentences after a dash are speech."""
    max_ellipsis_lines: Share = ByScript(latin=0.3, cjk=0.3, other=0.3)
    """Largest share of lines that end with an ellipsis, in [0, 1]."""
    max_menu_line_words: Annotated[ByScript, within(0)] = ByScript(latin=2.5, cjk=4.5, other=2.5)
    """A text of short lines without punctuation goes when its lines hold fewer words than this on average."""
    max_filler: Annotated[float, Field(ge=0, le=1)] | None = 0.1
    """Largest share of lorem ipsum's words in a text with that phrase, in [0, 1]."""
    max_template_lines: Annotated[float, Field(ge=0, le=1)] | None = 0.3
    """Largest share of lines with a template's field that nobody filled, in [0, 1]."""

    def build(self) -> "Quality":
        return Quality(self)


@dataclass(frozen=True)
class Quality:
    config: Config

    def apply(self, document: Document) -> Document | Drop:
        text = document.text
        script = script_of(text)
        pieces = text.split()
        return (
            self._length(text, script, pieces)
            or self._characters(text, script, pieces)
            or self._lines(text, script, pieces)
            or self._filler(text)
            or document
        )

    def _length(self, text: str, script: Script, pieces: list[str]) -> Drop | None:
        fewest, most = self.config.min_words.of(script), self.config.max_words.of(script)
        if fewest is not None and not _surely_has_words(text, script, pieces, fewest):
            num_words = len(words_of(text))
            if num_words < fewest:
                return Drop("too_few_words", f"{num_words} words < {fewest}")
        if most is not None and len(text) > most:
            num_words = len(words_of(text))
            if num_words > most:
                return Drop("too_many_words", f"{num_words} words > {most}")
        return None

    def _characters(self, text: str, script: Script, pieces: list[str]) -> Drop | None:
        config = self.config
        num_characters = sum(map(len, pieces))
        if not num_characters:
            return None
        num_pieces = len(pieces)
        if "://" in text or "www." in text:
            links = _LINK.findall(" ".join(piece for piece in pieces if "://" in piece or "www." in piece))
            link_characters = sum(map(len, links))
            if drop := _above("links", "links", link_characters / num_characters, config.max_links.of(script)):
                return drop
        else:
            links, link_characters = [], 0
        least = config.min_letters.of(script)
        if least is not None and not _has_ascii_letters(text, least * num_characters):
            share = len(_NO_LETTER.sub("", text)) / num_characters
            if share < least:
                return Drop("few_letters", f"share of letters {share:.2f} < {least}")
        least = config.min_words_with_letters.of(script)
        # Counting whole words of letters is twice as fast, and settles almost every text.
        if least is not None and sum(map(str.isalpha, pieces)) < least * num_pieces:
            share = sum(1 for piece in pieces if _LETTER.search(piece)) / num_pieces
            if share < least:
                return Drop("few_words_with_letters", f"share of words with letters {share:.2f} < {least}")
        mean = (num_characters - link_characters) / max(1, num_pieces - len(links))
        least, most = config.min_mean_word.of(script), config.max_mean_word.of(script)
        if least is not None and mean < least:
            return Drop("short_words", f"mean word {mean:.1f} characters < {least}")
        if most is not None and mean > most:
            return Drop("long_words", f"mean word {mean:.1f} characters > {most}")
        num_symbols = (len(_HASHTAG.findall(text)) if "#" in text else 0) + text.count("...") + text.count("…")
        num_words = num_characters if script == "cjk" else num_pieces
        return _above("symbols", "symbols for each word", num_symbols / num_words, config.max_symbols.of(script))

    def _lines(self, text: str, script: Script, pieces: list[str]) -> Drop | None:
        config = self.config
        lines = [line for line in map(str.strip, text.split("\n")) if line]
        if len(lines) < _FEWEST_LINES:
            return None
        share = sum(1 for line in lines if _is_item(line)) / len(lines)
        if drop := _above("bullets", "lines with bullets", share, config.max_bullet_lines.of(script)):
            return drop
        if "..." in text or "…" in text:
            broken = (line for line in lines if line.endswith(_ELLIPSES) and not line.endswith(_STUBS))
            share = sum(1 for _ in broken) / len(lines)
            if drop := _above("ellipses", "lines with ellipses", share, config.max_ellipsis_lines.of(script)):
                return drop
        if "{" in text or "%" in text or "[" in text:  # told in no time, unlike the pattern
            share = sum(1 for line in lines if _TEMPLATE.search(line)) / len(lines)
            if drop := _above("template", "lines with template fields", share, config.max_template_lines):
                return drop
        most = config.max_menu_line_words.of(script)
        if most is None or len(lines) < _FEWEST_MENU_LINES:
            return None
        words = sum(map(len, pieces)) if script == "cjk" else len(pieces)
        if words >= most * len(lines):
            return None
        num_short = sum(1 for line in lines if len(line) < _SHORT_LINE_CHARACTERS)
        num_ended = sum(1 for line in lines if line.endswith(_ENDED))
        if num_short >= _SHORT_LINES * len(lines) and num_ended <= _ENDED_LINES * len(lines):
            what = "characters" if script == "cjk" else "words"
            return Drop("menu", f"{words / len(lines):.1f} {what} a line < {most}, {num_ended} of {len(lines)} ended")
        return None

    def _filler(self, text: str) -> Drop | None:
        if self.config.max_filler is None or ("orem" not in text and "OREM" not in text) or not _LOREM.search(text):
            return None
        words = words_of(text.lower())
        share = sum(map(_filler_words().__contains__, words)) / len(words)
        return _above("lorem_ipsum", "lorem ipsum's words", share, self.config.max_filler)


def _surely_has_words(text: str, script: Script, pieces: list[str], fewest: float) -> bool:
    """Whether a text's start alone has enough words: settles almost every text without taking it into words."""
    if script == "cjk":
        return sum(map(len, _UNSPACED_RUN.findall(text[: int(4 * fewest)]))) >= fewest
    return sum(map(str.isalpha, pieces[: int(4 * fewest)])) >= fewest


def _is_item(line: str) -> bool:
    return line.startswith(_BULLETS) or (line.startswith(_DASHES) and not _SPOKEN.search(line))


@cache
def _filler_words() -> frozenset[str]:
    data = files("foundling.corpus.steps").joinpath("quality.yaml").read_text(encoding="utf-8")
    return frozenset(yaml.safe_load(data)["filler"].split())


def _has_ascii_letters(text: str, fewest: float) -> bool:
    """Whether ASCII's letters alone are enough: told in a twentieth of the time of a regular expression."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data) - len(data.translate(None, _ASCII_LETTERS)) >= fewest


def _above(reason: str, what: str, value: float, most: float | None) -> Drop | None:
    if most is None or value <= most:
        return None
    return Drop(reason, f"{what} {value:.2f} > {most}")
