"""Web archives (WARC 1.0 and 1.1, ISO 28500): a page or text that a server gave is a document.

Read are `response` and `resource` records with HTML or plain text, and the `conversion` records of WET files. A record
that is damaged or cut short is left out, and reading goes on with the next one.
"""

import re
import zlib
from collections.abc import Iterator, Mapping

from foundling.core.config import PartConfig
from foundling.corpus.readers.base import MAX_DOCUMENT_BYTES, Problem, Record
from foundling.corpus.readers.html import decoded_page, page
from foundling.corpus.streams import Stream

SUFFIXES = (".warc", ".wet")
_TYPES = ("response", "resource", "conversion")
_BEGIN = re.compile(rb"WARC/[01]\.\d+\r?\n(?=WARC-|Content-)", re.IGNORECASE)
_INSIDE = re.compile(rb"\nWARC/[01]\.\d+\r?\nWARC-")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_MAX_HEADER_BYTES = 1 << 16
_BEGIN_BYTES = 32
_PAGES, _TEXTS = ("text/html", "application/xhtml+xml"), ("text/plain",)
_LOOKS_LIKE_PAGE = re.compile(rb"\s*(?:<!doctype html|<html|<\?xml[^>]*>\s*<(?:!doctype )?html)", re.IGNORECASE)


class Config(PartConfig):
    """Nothing to set: the archive says what it holds."""

    def settle(self, stream: Stream, name: str) -> "Config":
        return self

    def build(self) -> "WarcReader":
        return WarcReader()


class WarcReader:
    def read(self, stream: Stream) -> Iterator[Record | Problem]:
        window = _Window(stream)
        num_records = num_others = num_skipped_bytes = 0
        is_torn = False
        while True:
            skipped, is_there = window.to_record()
            num_skipped_bytes += 0 if is_torn else skipped  # what follows a torn header is that record's
            if not is_there:
                break
            num_records += 1
            header = window.header()
            length = header.get("content-length", "") if header is not None else ""
            is_torn = header is None or not length.isdigit()
            if header is None or is_torn:
                yield Problem("malformed_record", f"record {num_records} has no whole header")
                continue
            block, detail = None, None
            if header.get("warc-type") not in _TYPES:
                window.skip(int(length))
                continue
            if int(length) > MAX_DOCUMENT_BYTES:
                window.skip(int(length))
                yield Problem("line_too_long", f"record {num_records} is longer than {MAX_DOCUMENT_BYTES} bytes")
                continue
            block, detail = window.block(int(length))
            if block is None:
                yield Problem("malformed_record", f"record {num_records} {detail}")
                continue
            item = _document(header, block, num_records)
            num_others += item is None
            if item is not None:
                yield item
        if num_skipped_bytes:
            where = "between records belong to none" if num_records else "are no WARC records"
            yield Problem("damaged_file", f"{num_skipped_bytes} bytes {where}")
        if num_others:
            yield Problem("other_content", f"{num_others} records hold neither HTML nor text, or an error", num_others)


class _Window:
    """The bytes of a stream that are looked at, and the rest to come."""

    def __init__(self, stream: Stream) -> None:
        self._pieces = iter(stream)
        self._data = bytearray()

    def _has(self, num_bytes: int) -> bool:
        while len(self._data) < num_bytes:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._data += piece
        return True

    def to_record(self) -> tuple[int, bool]:
        """Goes to the next record's beginning; how many bytes but line ends were passed, and whether there is one."""
        num_skipped = 0
        while True:
            self._has(_MAX_HEADER_BYTES)
            match = _BEGIN.search(self._data)
            end = match.start() if match else max(0, len(self._data) - _BEGIN_BYTES)
            num_skipped += len(bytes(self._data[:end]).strip(b"\r\n"))
            del self._data[:end]
            if match:
                return num_skipped, True
            if not self._has(_BEGIN_BYTES + 1):
                return num_skipped + len(bytes(self._data).strip(b"\r\n")), False

    def header(self) -> dict[str, str] | None:
        """The fields of the header that begins here, names in lower case; None where it is not whole."""
        self._has(_MAX_HEADER_BYTES)
        match = _HEADER_END.search(self._data, 0, _MAX_HEADER_BYTES)
        if match is None:
            del self._data[: _BEGIN_BYTES // 4]
            return None
        fields = _fields(bytes(self._data[: match.start()]))
        del self._data[: match.end()]
        return fields

    def skip(self, num_bytes: int) -> None:
        while num_bytes > 0 and self._has(1):
            taken = min(num_bytes, len(self._data))
            del self._data[:taken]
            num_bytes -= taken

    def block(self, num_bytes: int) -> tuple[bytes | None, str]:
        """A record's content, or None and why not: then the window is at what may be the next record."""
        is_whole = self._has(num_bytes)
        block = bytes(self._data[:num_bytes])
        inside = _INSIDE.search(block)
        if inside is not None:
            del self._data[: inside.start()]
            return None, "is damaged: the next one begins before it ends"
        del self._data[:num_bytes]
        return (block, "") if is_whole else (None, "is cut short")


def _fields(header: bytes) -> dict[str, str]:
    fields = {}
    for line in header.splitlines()[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            fields[name.decode("latin-1").strip().lower()] = value.decode("utf-8", "replace").strip()
    return fields


def _document(header: Mapping[str, str], block: bytes, number: int) -> Record | None:
    """The document of a record, or None where it holds no text or the server gave an error."""
    kind, body = header.get("content-type", ""), block
    if kind.startswith("application/http"):
        match = _HEADER_END.search(block, 0, _MAX_HEADER_BYTES)
        status = block[:64].split(None, 2)[1:2]
        if match is None or status != [b"200"]:
            return None
        fields = _fields(block[: match.start()])
        unpacked = _unpacked(block[match.end() :], fields)
        if unpacked is None:
            return None
        kind, body = fields.get("content-type", ""), unpacked
    name, _, parameters = kind.partition(";")
    name = name.strip().lower()
    is_page = name in _PAGES or (not name and _LOOKS_LIKE_PAGE.match(body) is not None)
    if not is_page and name not in _TEXTS:
        return None
    charset = re.search(r"charset\s*=\s*[\"']?([\w:.-]+)", parameters, re.IGNORECASE)
    text, _ = decoded_page(body, charset[1] if charset else None)
    if text is None:
        return None
    meta = {key: header[field] for key, field in (("url", "warc-target-uri"), ("date", "warc-date")) if field in header}
    meta = {key: value.strip("<>") for key, value in meta.items()}
    return page(text, f":{number}", **meta) if is_page else Record(text.replace("\0", ""), f":{number}", dict(meta))


def _unpacked(body: bytes, fields: Mapping[str, str]) -> bytes | None:
    """The body without transfer and content encodings, which some crawlers undo; None where it is damaged."""
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    encoding = fields.get("content-encoding", "").lower().strip()
    if encoding in ("gzip", "x-gzip", "deflate") and body[:2] in (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
        decoder = zlib.decompressobj(wbits=47)  # 32 + 15: gzip or zlib, by its header
        try:
            body = decoder.decompress(body, MAX_DOCUMENT_BYTES)
        except zlib.error:
            return None
    return body


def _unchunked(body: bytes) -> bytes:
    """The chunks joined; the body as it is where it has none."""
    parts: list[bytes] = []
    at = 0
    while match := re.compile(rb"([0-9a-fA-F]{1,8})[^\r\n]*\r\n").match(body, at):
        size = int(match[1], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[match.end() : match.end() + size])
        at = match.end() + size + 2
    return b"".join(parts) if parts and at >= len(body) else body
