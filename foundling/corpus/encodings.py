"""Which encoding bytes are in: a byte order mark, UTF-8 where it holds, else what a detector says if it decodes so.

The detector is uchardet (in resiliparse). Of 40 texts each in GB18030, Big5, Latin-1, cp1252, cp1251, KOI8-R, Shift-JIS
and cp949 it knew all of 1,000 characters, and of 100 characters all but one in Latin-1, which stayed unknown.
"""

import codecs
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator
from resiliparse.parse.encoding import detect_encoding

from foundling.corpus.streams import Stream, recoded

__all__ = ["Guess", "NamedEncoding", "guess_encoding", "recoded", "settle_encoding"]

_NUM_BYTES_TO_GUESS = 1 << 20
# Text has no control characters but white space, escapes and form feeds; of random bytes a tenth are such.
_BINARY_SHARE = 0.03
_CONTROL = bytes(sorted({*range(32)} - {9, 10, 12, 13, 27}))
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UTF8_MAJORITY = 4
_DAMAGED_SHARE = 0.1
_HIGH = re.compile(r"[A-Za-z]?[^\x00-\x7f]+[A-Za-z]?")
_IN_WORDS = re.compile(r"\w{2}|[‘’“”„«»–—…•™©®°€£§\u00a0\u3001-\u303f]")
# Each superset of what the detector names; several where files called by one name are written in either.
_SUPERSETS = {
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "big5": ("cp950", "big5hkscs"),
    "shift_jis": ("cp932",),
    "euc_kr": ("cp949",),
    "iso8859-1": ("cp1252", "iso8859-1"),
    "cp1252": ("cp1252", "iso8859-1"),
}


def _known(name: str) -> str:
    try:
        return _text_codec(name)
    except LookupError:
        raise ValueError("an encoding must be one that Python knows, such as gb18030, big5 or cp1252") from None


NamedEncoding = Annotated[str, AfterValidator(_known)]
"""The name of an encoding in a config."""


@dataclass(frozen=True)
class Guess:
    """`name`: the encoding, or None where the bytes are no text; then `problem` and `reason` say why."""

    name: str | None
    problem: str = ""
    reason: str = ""


def settle_encoding(stream: Stream, given: str | None) -> str | None:
    """The encoding that was given, else the one that the file's first MiB is in; None: no text that can be read."""
    return given or guess_encoding(stream).name


def guess_encoding(stream: Stream, declared: str | None = None) -> Guess:
    """What the file's first MiB is in. declared: what the file itself says, believed where it decodes."""
    start = stream.peek(_NUM_BYTES_TO_GUESS)
    return guess_encoding_of(start, is_whole=len(start) < _NUM_BYTES_TO_GUESS, declared=declared)


def guess_encoding_of(data: bytes, *, is_whole: bool, declared: str | None = None) -> Guess:
    """As `guess_encoding`, of bytes; is_whole: whether the last character must be complete."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return Guess(name)
    is_utf8 = _decodes(data, "utf-8", is_whole)
    if (wide := _utf_16(data)) and (not is_utf8 or b"\0" in data):
        return Guess(wide)
    controls = len(data) - len(data.translate(None, _CONTROL))
    if controls > max(1, _BINARY_SHARE * len(data)):
        return Guess(None, "binary", "it is binary" + (" (it holds NUL bytes)" if b"\0" in data else ""))
    if is_utf8:
        return Guess("utf-8")
    for superset in _supersets(declared):
        if _decodes(data, superset, is_whole):
            return Guess(superset)
    if _mostly_utf8(data):  # damaged UTF-8; a legacy encoding would read it as other letters
        return Guess("utf-8")
    for superset in _supersets(detect_encoding(data, html5_compatible=False)):
        if _decodes(data, superset, is_whole) and _is_plausible(data, superset):
            return Guess(superset)
    if sum(byte > 127 for byte in data) <= _DAMAGED_SHARE * len(data):
        return Guess("utf-8")  # stray bytes in ASCII: replaced, counted and told
    reason = (
        "it is binary, or text in an encoding that could not be told; set encoding=NAME (gb18030, big5, cp1252, ...)"
    )
    return Guess(None, "unknown_encoding", reason)


def _text_codec(name: str) -> str:
    """Python's name of an encoding of text. LookupError: there is none of this name, or it is of bytes (base64)."""
    found = codecs.lookup(name)
    if not found._is_text_encoding:
        raise LookupError(name)
    return found.name


def _supersets(name: str | None) -> tuple[str, ...]:
    try:
        known = _text_codec(name or "")
    except LookupError:  # a page may declare anything
        return ()
    return _SUPERSETS.get(known, (known,))


def _decodes(data: bytes, encoding: str, is_whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, final=is_whole)
    except (UnicodeError, LookupError):
        return False
    return True


def _mostly_utf8(data: bytes) -> bool:
    """Whether far more non-ASCII bytes belong to UTF-8 characters than do not: of short GBK text even half may."""
    good = data.decode(errors="ignore")
    num_good = len(good.encode()) - sum(map(good.count, map(chr, range(128)))) if not good.isascii() else 0
    return num_good > _UTF8_MAJORITY * (len(data) - len(good.encode()))


def _is_plausible(data: bytes, encoding: str) -> bool:
    """Whether what is not ASCII comes out in words, or as dashes and quotes: alone, any byte is a letter somewhere."""
    high = _HIGH.findall(data.decode(encoding, errors="ignore"))
    return 2 * sum(bool(_IN_WORDS.search(run)) for run in high) >= len(high)


def _utf_16(data: bytes) -> str | None:
    """UTF-16 without a mark, where a fifth of it is ASCII: zeros at one parity only, and no control characters."""
    data = data[: len(data) & ~1]
    num_zeros = (data[0::2].count(0), data[1::2].count(0))
    if len(data) < 4 or min(num_zeros) * 20 > max(num_zeros) or max(num_zeros) * 10 < len(data):
        return None
    name = "utf-16-be" if num_zeros[0] > num_zeros[1] else "utf-16-le"
    if not _decodes(data, name, False):
        return None
    text = data.decode(name, errors="ignore")
    return name if sum(map(text.count, map(chr, _CONTROL))) * 100 <= len(text) else None
