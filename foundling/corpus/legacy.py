"""Text in a legacy encoding (GBK, Big5, Shift-JIS, EUC-KR, cp1251, KOI8-R, ...) that was read as Latin-1 or cp1252.

`ÏÔÊ¾` is what is left of `显示` and `Ñòðîêè` of `Строки`. No language of Latin letters has one accented letter or sign
after the other for long, so lines of which most are such runs are not what somebody wrote. Which encoding their bytes
are in, the detector of `encodings` says; where what comes out is not one script's letters, all stays as it is.
"""

import re

from foundling.corpus.encodings import guess_encoding_of
from foundling.corpus.scripts import HAN, KANA

_CP1252 = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_HIGH = f"\x80-\xff{_CP1252}"
_RUN = re.compile(f"[{_HIGH}](?=[{_HIGH}]{{2}})[{_HIGH}]+")
_HIGH_CHARACTER, _ASCII_LETTER = re.compile(f"[{_HIGH}]"), re.compile("[A-Za-z]")
_SURE_RUN = re.compile(f"[\xa1-\xff](?=[{_HIGH}]{{3}})[{_HIGH}]+")
_MIN_CHARACTERS, _MIN_DISTINCT = 12, 8
_MIN_IN_RUNS, _MIN_HIGH = 0.7, 0.5
_MIN_LETTERS = 0.75
_SCRIPTS = {
    "han": re.compile(f"[{HAN}{KANA}\u3000-\u303f\uff00-\uff65]"),
    "hangul": re.compile("[\uac00-\ud7a3\u3000-\u303f]"),
    "cyrillic": re.compile("[\u0400-\u045f\u0490\u0491]"),
    "greek": re.compile("[\u0370-\u03ff]"),
    "hebrew": re.compile("[\u05d0-\u05ea]"),
    "arabic": re.compile("[\u0600-\u06ff]"),
    "thai": re.compile("[\u0e01-\u0e5b]"),
}
_SHOUTED = re.compile("[\u0430-\u044f\u0450-\u045f][\u0400-\u042f]")


def from_legacy(text: str) -> tuple[str, int]:
    """The text as it was meant, and how many lines were decoded again: 0 where nothing is certain."""
    if _SURE_RUN.search(text) is None:
        return text, 0
    lines = text.split("\n")
    suspects = [number for number, line in enumerate(lines) if _is_suspect(line)]
    data = [_bytes(lines[number]) for number in suspects]
    known = b"\n".join(raw for raw in data if raw is not None)
    if not known:
        return text, 0
    encoding = guess_encoding_of(known, is_whole=True).name
    if encoding in (None, "utf-8", "cp1252", "iso8859-1") or not _is_one_script(known.decode(encoding, "replace")):
        return text, 0
    num_mended = 0
    for number, raw in zip(suspects, data, strict=True):
        try:
            lines[number] = raw.decode(encoding) if raw is not None else lines[number]
            num_mended += raw is not None
        except UnicodeDecodeError:  # this line was something else
            continue
    return "\n".join(lines), num_mended


def _is_suspect(line: str) -> bool:
    num_high = len(_HIGH_CHARACTER.findall(line))
    num_in_runs = sum(map(len, _RUN.findall(line)))
    return num_in_runs >= max(3, _MIN_IN_RUNS * num_high) and num_high >= _MIN_HIGH * len(_ASCII_LETTER.findall(line))


def _bytes(line: str) -> bytes | None:
    """The bytes that were read; a byte that cp1252 has no place for is read as Latin-1 everywhere."""
    found = bytearray()
    for character in line:
        try:
            found += character.encode("cp1252" if character in _CP1252 else "latin-1")
        except UnicodeEncodeError:
            return None
    return bytes(found)


def _is_one_script(text: str) -> bool:
    high = [character for character in text if character > "\x7f"]
    if len(high) < _MIN_CHARACTERS or len(set(high)) < _MIN_DISTINCT:
        return False
    joined = "".join(high)
    best = max(len(pattern.findall(joined)) for pattern in _SCRIPTS.values())
    # Cyrillic in the wrong one of its encodings has capitals where small letters are.
    return best >= _MIN_LETTERS * len(high) and 10 * len(_SHOUTED.findall(text)) <= len(high)
