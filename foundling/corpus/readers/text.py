"""Plain text and source code: a file is a document."""

from collections.abc import Iterator

from foundling.corpus.readers.base import Problem, Record, TextConfig, encoding_problems, text_pieces
from foundling.corpus.streams import Stream, decode

# fmt: off
SUFFIXES = (
    ".txt", ".md", ".rst", ".py", ".text", ".markdown", ".adoc", ".org", ".tex", ".pyi",
    ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".kt", ".scala", ".swift",
    ".js", ".ts", ".jsx", ".tsx", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".hs", ".ml", ".sh", ".sql",
)
# fmt: on
MAX_BYTES = 8 << 20
"""A larger file is cut at a line end into documents of at most this size, so that memory stays bounded."""


class Config(TextConfig):
    """How the file is read: as one document."""

    def build(self) -> "TextReader":
        return TextReader(MAX_BYTES, self.encoding)


class TextReader:
    def __init__(self, max_bytes: int, encoding: str | None = None) -> None:
        self.max_bytes = max_bytes
        self.encoding = encoding

    def read(self, stream: Stream) -> Iterator[Record | Problem]:
        pieces = text_pieces(stream, self.encoding)
        if isinstance(pieces, Problem):
            yield pieces
            return
        kept, num_parts, num_bad_bytes, num_nuls = bytearray(), 0, 0, 0
        for piece in pieces:
            num_nuls += piece.count(0)
            kept += piece.replace(b"\0", b"")
            while len(kept) > self.max_bytes:
                cut = _cut(kept, self.max_bytes)
                text, bad = decode(bytes(kept[:cut]))
                num_parts, num_bad_bytes = num_parts + 1, num_bad_bytes + bad
                yield Record(text, f":{num_parts}")
                del kept[:cut]
        text, bad = decode(bytes(kept))
        yield Record(text, f":{num_parts + 1}" if num_parts else "")
        if num_parts:
            yield Problem("cut", f"it is larger than {self.max_bytes} bytes and was cut at line ends", num_parts)
        if num_nuls:
            yield Problem("nul_bytes", f"{num_nuls} NUL bytes are removed", num_nuls)
        yield from encoding_problems(stream, num_bad_bytes + bad)


def _cut(data: bytearray, limit: int) -> int:
    """Where to cut: after the last line end before `limit`, else before the character that stands there."""
    cut = data.rfind(b"\n", 0, limit) + 1
    if not cut:
        cut = limit
        while cut > limit - 4 and data[cut] & 0xC0 == 0x80:
            cut -= 1
    return cut
