"""The tokenizing process: reads batches of texts from standard input, writes their ids to standard output.

Started by `foundling.data.tokenize` as a fresh interpreter; it imports neither torch nor the caller's main module. A
message is two little-endian int64 (number of items, bytes of the body), the items' lengths as int64, then the body.
The process ends when its input does, so it never outlives its parent.
"""

import signal
import struct
import sys
from typing import BinaryIO

import numpy as np
import tokenizers

from foundling.tokenizers.base import SpecialTokens, Tokenizer

_HEAD = struct.Struct("<qq")


def write_message(stream: BinaryIO, lengths: np.ndarray, bodies: list[bytes]) -> None:
    """Writes items: lengths `[num_items]` int64 in whatever unit the reader expects, bodies concatenated."""
    stream.write(_HEAD.pack(len(lengths), sum(map(len, bodies))))
    stream.write(np.ascontiguousarray(lengths, dtype="<i8").tobytes())
    stream.writelines(bodies)
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[np.ndarray, bytes] | None:
    """The lengths and the body of the next message; None where the stream has ended."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    num_items, num_bytes = _HEAD.unpack(head)
    lengths = stream.read(8 * num_items)
    body = stream.read(num_bytes)
    if len(lengths) < 8 * num_items or len(body) < num_bytes:
        return None
    return np.frombuffer(lengths, dtype="<i8"), body


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """First message: `tokenizer.json`. Each further one: texts (lengths in bytes); answered with ids (in tokens)."""
    first = read_message(source)
    assert first is not None, "the tokenizer comes first"
    raw = tokenizers.Tokenizer.from_str(first[1].decode())
    tokenizer = Tokenizer(raw, SpecialTokens(), kind="")
    while (message := read_message(source)) is not None:
        lengths, body = message
        ends = np.cumsum(lengths)
        texts = [body[end - length : end].decode() for end, length in zip(ends, lengths, strict=True)]
        ids = tokenizer.encode_batch(texts)
        write_message(sink, np.array([len(i) for i in ids], dtype=np.int64), [i.tobytes() for i in ids])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and decides
    serve(sys.stdin.buffer, sys.stdout.buffer)
