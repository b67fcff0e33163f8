"""What a run was trained on, as its token stores have it: for a baseline of the same tokens, and to tell which of the
texts that it is scored on it has seen."""

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from foundling.data.store import TokenStore, TokenStream
from foundling.tokenizers.base import Tokenizer

SHORTEST = 16
"""Tokens from which on a text that is met again is told: shorter ones recur by themselves."""


def training_streams(run: Path, tokenizer: Tokenizer) -> list[TokenStream]:
    """The training splits of a run folder's token stores; none where the folder has no store.

    UserError: a store of another tokenizer.
    """
    stores = sorted(path for path in run.glob("tokens-*") if path.name != "tokens-valid" and path.is_dir())
    return [TokenStore.open(path, tokenizer.sha256).split("train") for path in stores]


def count_seen(streams: Sequence[TokenStream], texts: Iterable[Sequence[int]]) -> int:
    """How many texts (token ids without an end token) are whole documents of the streams, token by token.

    Of the streams only documents as long as one of the texts are read. Texts of less than `SHORTEST` tokens are not
    counted.
    """
    wanted: dict[int, Counter[bytes]] = {}
    for text in texts:
        if len(text) >= SHORTEST:
            wanted.setdefault(len(text), Counter())[_digest(text)] += 1
    num_seen = 0
    for stream in streams:
        lengths = np.asarray(stream.document_lengths) - 1  # their end tokens
        for number in np.flatnonzero(np.isin(lengths, list(wanted))):
            length = int(lengths[number])
            ids = stream.read(int(stream.document_starts[number]), length)
            num_seen += wanted[length].pop(_digest(ids), 0)
    return num_seen


def _digest(ids: Sequence[int] | np.ndarray) -> bytes:
    return blake2b(np.asarray(ids, dtype=np.int64).tobytes(), digest_size=16).digest()
