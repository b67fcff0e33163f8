"""Web pages and chapters of e-books: a file is a document, its main text (`extract`); its title becomes `meta`."""

import re
from collections.abc import Iterator
from typing import Self

from foundling.corpus.encodings import guess_encoding, guess_encoding_of
from foundling.corpus.extract import main_text, title_of
from foundling.corpus.readers.base import (
    MAX_DOCUMENT_BYTES,
    Problem,
    Record,
    TextConfig,
    encoding_problems,
    text_pieces,
)
from foundling.corpus.streams import Stream, decode

SUFFIXES = (".html", ".htm", ".xhtml", ".xht")
_DECLARED = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([\w:.-]+)", re.IGNORECASE)
_NUM_BYTES_TO_DECLARE = 4096


class Config(TextConfig):
    """How the file is read. Without `encoding`, what the page declares is believed where it decodes."""

    def settle(self, stream: Stream, name: str) -> Self:
        if self.encoding is not None:
            return self
        guess = guess_encoding(stream, declared_encoding(stream.head))
        return self.model_copy(update={"encoding": guess.name})

    def build(self) -> "HtmlReader":
        return HtmlReader(self.encoding)


class HtmlReader:
    def __init__(self, encoding: str | None) -> None:
        self.encoding = encoding

    def read(self, stream: Stream) -> Iterator[Record | Problem]:
        pieces = text_pieces(stream, self.encoding)
        if isinstance(pieces, Problem):
            yield pieces
            return
        data = bytearray()
        for piece in pieces:
            data += piece
            if len(data) > MAX_DOCUMENT_BYTES:
                yield Problem("line_too_long", f"the page is longer than {MAX_DOCUMENT_BYTES} bytes")
                return
        html, num_bad_bytes = decode(bytes(data))
        yield page(html)
        yield from encoding_problems(stream, num_bad_bytes)


def page(html: str, suffix: str = "", **meta: str) -> Record:
    """A page as a record."""
    title = title_of(html)
    return Record(main_text(html.replace("\0", "")), suffix, {**meta, **({"title": title} if title else {})})


def declared_encoding(head: bytes) -> str | None:
    """What a page says of its own encoding, in `<meta charset=...>` or `<?xml encoding=...?>`."""
    match = _DECLARED.search(head, 0, _NUM_BYTES_TO_DECLARE)
    return match[1].decode() if match else None


def decoded_page(data: bytes, declared: str | None = None) -> tuple[str | None, int]:
    """The text of a page's bytes and how many of them could not be read; None where they are no text.

    declared: the encoding that the server named; what the page itself says comes second, as browsers have it.
    """
    guess = guess_encoding_of(data, is_whole=True, declared=declared or declared_encoding(data))
    if guess.name is None:
        return None, 0
    if guess.name == "utf-8":
        return decode(data.removeprefix(b"\xef\xbb\xbf"))
    return data.decode(guess.name, errors="replace"), 0
