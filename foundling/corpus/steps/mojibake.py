"""Text that was decoded with the wrong encoding, decoded again with the right one.

UTF-8 read as one of ten single-byte encodings is found and mended by ftfy (Speer, 2019, "ftfy",
doi:10.5281/zenodo.2591652) with its repairs of encodings only: quotes, ligatures, widths, entities and line ends are
what somebody wrote and stay. UTF-8 read as GBK, which ftfy does not know, is ours: `鈥檚` is what is left of `’s`, and
`浣犲ソ` of `你好`. The bytes of good Chinese in GBK are almost never UTF-8, so a line that is mends itself.

Text in a legacy encoding that was read as Latin-1 or cp1252 is mended by `corpus/legacy.py`.

Lines are mended one by one, because pages are put together from parts. A line is looked at only where a character
that a first byte of UTF-8 may have become stands before one of a later byte: most lines cost one search.
"""

import re
from dataclasses import dataclass

from ftfy import TextFixerConfig, fix_encoding

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.legacy import from_legacy

REASONS: dict[str, str] = {}

_ENCODINGS = ("latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1257", "iso-8859-2", "mac-roman", "cp437")
"""The single-byte encodings that ftfy tries."""
_REPAIRS = TextFixerConfig(explain=False)
"""`fix_encoding` applies the repairs of encodings alone, whatever else the config says."""
_FIRST_BYTES, _LATER_BYTES = range(0xC2, 0xF5), range(0x80, 0xC0)
_GBK_FIRST_BYTES = (*range(0xE2, 0xEA), 0xEF)  # punctuation, kana and Han: what three bytes of UTF-8 begin with
_MIN_SEQUENCES = 3


class Config(PartConfig):
    """Changes text, drops nothing. There is nothing to set: a repair is certain, or it is not made."""

    def build(self) -> "Mojibake":
        return Mojibake()


@dataclass(frozen=True)
class Mojibake:
    def apply(self, document: Document) -> Document | Drop:
        text = document.text
        if text.isascii():
            return document
        text, num_legacy = from_legacy(text)
        if num_legacy:
            return document.with_text(text, mojibake=num_legacy)
        if _SUSPECT.search(text) is None and _GBK_SUSPECT.search(text) is None:
            return document
        lines = text.split("\n")
        mended = [line if line.isascii() else _mended(line) for line in lines]
        num_mended = sum(old != new for old, new in zip(lines, mended, strict=True))
        return document.with_text("\n".join(mended), mojibake=num_mended) if num_mended else document


def _mended(line: str) -> str:
    if _SUSPECT.search(line) is not None:
        line = fix_encoding(line, _REPAIRS)
    if _GBK_SUSPECT.search(line) is not None:
        line = _from_gbk(line)
    return line


def _from_gbk(line: str) -> str:
    """The line whose UTF-8 was read as GBK, or the line itself. What lost a byte in the reading becomes U+FFFD."""
    raw = _LOST.sub(b"\xff", line.replace("\ufffd", "\x1a").encode("gb18030", "replace"))
    text = raw.decode("utf-8", "replace")
    num_expected, num_lost = len(_EXPECTED.findall(text)), text.count("\ufffd")
    num_others = len(_THREE_BYTES.findall(text)) - num_expected - num_lost
    fewest = 1 if _GBK_ONLY.search(line) else _MIN_SEQUENCES
    certain = num_expected >= fewest and num_expected >= num_lost and num_expected >= 4 * num_others
    return _LOST_RUN.sub("\ufffd", text) if certain else line


def _characters(encoding: str, values: range) -> str:
    """What each byte becomes in an encoding; where it has no place, what Latin-1 makes of it, as browsers do."""
    found = (bytes([value]).decode(encoding, "ignore") or chr(value) for value in values)
    return "".join(re.escape(character) for character in found)


def _single_byte_suspects() -> re.Pattern[str]:
    pairs = [(_characters(name, _FIRST_BYTES), _characters(name, _LATER_BYTES)) for name in _ENCODINGS]
    firsts = "".join(sorted({*"".join(first for first, _ in pairs)} - {"\\"}))
    anywhere = "|".join(f"[{first}][{later}]" for first, later in pairs)
    # A blank that was a no-break space (byte A0), a question mark that was a byte lost, and C1 characters alone.
    return re.compile(f"(?=[{firsts}\x80-\x9f])(?:{anywhere}|[ÂÃÅÎÐÙâã][ ?\ufffd]|[\x80-\x9f])")


def _gbk_characters(later_bytes: range) -> str:
    pairs = (bytes([first, later]) for first in _GBK_FIRST_BYTES for later in later_bytes)
    return "".join(pair.decode("gbk", "ignore") for pair in pairs)


_SUSPECT = _single_byte_suspects()
_GBK_SUSPECT = re.compile(f"[{_gbk_characters(_LATER_BYTES)}]")
_GBK_ONLY = re.compile(f"[{_gbk_characters(range(0x80, 0xA1))}]")
"""Outside GB 2312: names of a few people and places apart, nobody writes them in simplified Chinese."""
_THREE_BYTES = re.compile("[\u0800-\uffff]")
_EXPECTED = re.compile("[\u2010-\u203a\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef]")
"""Curly quotes, dashes, Han, kana, full-width forms: what texts that were read as GBK are made of."""
_LOST = re.compile(rb"[\xe2-\xef]?[\x80-\xbf]?\x1a+|[\xe2-\xef][\x80-\xbf]\?")
_LOST_RUN = re.compile("\ufffd+")
