"""Which script a text is in, what its words are, and thresholds that differ by script.

Rules of thumb from English fail where no spaces stand between words, so every threshold of a step may have three
values. Script ranges follow the block and script property of the Unicode Character Database (UAX #24).
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal
from unicodedata import category

from pydantic import AfterValidator, ModelWrapValidatorHandler, model_validator
from pydantic_core import PydanticCustomError

from foundling.core.config import Strict

Script = Literal["latin", "cjk", "other"]

HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
"""Han characters, as the inside of a regular expression's class."""
KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
"""Hiragana and katakana, with the half-width forms."""
_SOUTH_EAST_ASIAN = (
    "\u0e01-\u0e30\u0e32-\u0e33\u0e40-\u0e46"  # Thai
    "\u0e81-\u0eb0\u0eb2-\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf"  # Lao
    "\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065-\u1066\u106e-\u1070\u1075-\u1081\u108e"  # Myanmar
    "\u1780-\u17b3\u17d7\u17dc"  # Khmer
)
UNSPACED = HAN + KANA + "\u3105-\u312f" + _SOUTH_EAST_ASIAN
"""Letters of the scripts that put no spaces between words."""
LATIN = "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a"
"""Latin letters."""
JOINERS = "'\u2019\u2011-"
"""Apostrophes and hyphens, which stand inside a word where one stands between letters."""

_UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")
_LATIN_RUN = re.compile(f"[{LATIN}]+")
_LETTER_RUN = re.compile(r"[^\W\d_]+")
_ASCII_WORD = re.compile(r"[A-Za-z0-9_]+(?:['-][A-Za-z0-9_]+)*")
_SAMPLE_CHARACTERS = 512


def script_of(text: str) -> Script:
    """The script that most of a text is in, from a sample of its start, middle and end.

    `cjk` stands for all scripts without spaces between words: Han and kana, and Thai, Lao, Khmer and Myanmar; Korean,
    which has spaces, is `other`. Letters are weighed by their bytes in UTF-8, because a Han character says about as
    much as three Latin letters. A text without letters is `latin`.
    """
    if len(text) > 3 * _SAMPLE_CHARACTERS:
        middle = (len(text) - _SAMPLE_CHARACTERS) // 2
        middle_part = text[middle : middle + _SAMPLE_CHARACTERS]
        text = f"{text[:_SAMPLE_CHARACTERS]}\n{middle_part}\n{text[-_SAMPLE_CHARACTERS:]}"
    # The common case, English with a few curly quotes, is told in a fifth of the time by its bytes alone.
    num_extra_bytes = len(text.encode("utf-8", "surrogatepass")) - len(text)
    if 20 * num_extra_bytes < len(text):
        return "latin"
    num_unspaced = _count(_UNSPACED_RUN, text)
    num_latin = _count(_LATIN_RUN, text)
    num_other = _count(_LETTER_RUN, text) - num_latin - num_unspaced
    weights: dict[Script, int] = {"latin": num_latin, "cjk": 3 * num_unspaced, "other": 2 * num_other}
    return max(weights, key=weights.__getitem__)


def words_of(text: str) -> list[str]:
    """The words of a text in order, without punctuation.

    A word is a run of letters, digits and marks, with apostrophes and hyphens inside it; in scripts without spaces
    each character, with the marks on it, is a word.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text)
    marks, without, with_marks = _any_words()
    return (with_marks if marks.search(text) else without).findall(text)


@cache
def _any_words() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """What texts with combining marks hold; words of a text without them; and with them, which takes longer."""
    marks = combining_marks()
    near = f"[{_ranges(code for code in marks if code < 0x10000)}]"
    # The engine looks up a character below U+10000 in a table, and above compares it with a range after the other.
    far = "[\U00010000-\U0001e94f]"
    mark = f"(?:{near}|(?={far})[{_ranges(code for code in marks if code >= 0x10000)}])"
    run = rf"[^\W{UNSPACED}]"
    without = rf"[{UNSPACED}]|{run}+(?:[{JOINERS}]{run}+)*"
    with_marks = rf"[{UNSPACED}]{mark}*|{run}(?:{run}|{mark}|[{JOINERS}](?={run}))*"
    return re.compile(f"{near}|{far}"), re.compile(without), re.compile(with_marks)


def combining_marks() -> list[int]:
    """The code points that belong to the letter before them: marks of all scripts, and the two joiners of no width."""
    # Python's \w has no combining marks, without which words of Hindi or Arabic with vowels fall to pieces.
    return [code for code in range(0x300, 0x1E950) if category(chr(code)) in ("Mn", "Mc", "Me")] + [0x200C, 0x200D]


def _ranges(codes: Iterable[int]) -> str:
    """Characters as the inside of a regular expression's class."""
    runs: list[list[int]] = []
    for code in sorted(codes):
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))


class ByScript(Strict):
    """A threshold for each script; one number stands for all three. None: no bound for that script."""

    latin: int | float | None
    """Value for texts mostly in Latin letters."""
    cjk: int | float | None
    """Value for texts in scripts without spaces between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese."""
    other: int | float | None
    """Value for all other scripts: Cyrillic, Greek, Arabic, Hebrew, Devanagari, Korean, ..."""

    @model_validator(mode="wrap")
    @classmethod
    def _one_for_all(cls, value: Any, handler: ModelWrapValidatorHandler["ByScript"]) -> "ByScript":
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            value = {"latin": value, "cjk": value, "other": value}
        elif not isinstance(value, dict | cls):
            raise PydanticCustomError("by_script", "expected a number, or a mapping with the keys latin, cjk, other")
        return handler(value)

    def of(self, script: Script) -> int | float | None:
        """The value for one script."""
        value: int | float | None = getattr(self, script)
        return value


def within(low: float, high: float | None = None) -> AfterValidator:
    """Bounds for `Annotated[ByScript, within(0, 1)]`: every value lies in [low, high]; high None: no upper bound."""

    def check(thresholds: ByScript) -> ByScript:
        for script in ("latin", "cjk", "other"):
            value = getattr(thresholds, script)
            if value is not None and (value < low or (high is not None and value > high)):
                bounds = f"at least {low}" if high is None else f"between {low} and {high}"
                raise ValueError(f"{script} must be {bounds}; got {value}")
        return thresholds

    return AfterValidator(check)
