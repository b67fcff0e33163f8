"""What general compressors make of the same bytes: the baseline that a language model's bits per byte stand beside.

A compressor starts from nothing and pays for what it learns, a model has been trained: so this says what repetition
in the text alone is worth.
"""

import lzma
import zlib
from collections.abc import Iterable
from typing import Protocol

from foundling.core.errors import UserError

_GZIP_BITS = 31
"""zlib's window of 32 KiB with gzip's header and checksum."""


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def compressed_bits_per_byte(pieces: Iterable[bytes]) -> dict[str, float]:
    """Bits of the compressed form a byte of input: `{"gzip -9": ..., "xz -9e": ...}`.

    pieces: the bytes in order, cut anywhere. xz takes about 1 s a MB and 700 MB of memory. UserError: no bytes.
    """
    compressors: dict[str, _Compressor] = {
        "gzip -9": zlib.compressobj(9, wbits=_GZIP_BITS),
        "xz -9e": lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME),
    }
    sizes = dict.fromkeys(compressors, 0)
    num_bytes = 0
    for piece in pieces:
        num_bytes += len(piece)
        for name, compressor in compressors.items():
            sizes[name] += len(compressor.compress(piece))
    if not num_bytes:
        raise UserError("there must be bytes to compress", got="none")
    return {name: 8 * (size + len(compressors[name].flush())) / num_bytes for name, size in sizes.items()}
