"""The unigram language model (Kudo 2018, arXiv:1804.10959, section 3.2), as SentencePiece has it: spaces are `▁`.

A text is split into the pieces whose probabilities multiply to the most. What no piece covers is spelled in bytes
(`<0xE4>` ...), so nothing is unknown and a text comes back exactly, but for `▁` itself, which comes back as a space.

Training is ours: the library's trainer sums in the order of a hash map, so its vocabularies change from run to run.
Differences from SentencePiece: seeds are counted inside words rather than by suffix array, and pruning takes a piece's
loss as count * (log p(piece) - log p(best other split)).
"""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import tokenizers
from annotated_types import Ge, Gt, Le
from tokenizers import decoders, models, pre_tokenizers

from foundling.core.errors import UserError
from foundling.tokenizers._lattice import Lattice
from foundling.tokenizers._rules import NUMBERS_AND_LINES
from foundling.tokenizers._text import TextStream, frequent, must_fill
from foundling.tokenizers.base import Role, Tokenizer, TokenizerConfig, added

_BYTE_SCORE, _SPECIAL_SCORE = -1000.0, -10_000.0
"""Log probabilities that lose to any spelling: `<0x41>` or `<s>` in a text is read as characters, never as the token.
For the same reason the characters of these names are always in the alphabet."""

_BYTE_NAMES = [f"<0x{byte:02X}>" for byte in range(256)]

_SEEDS_A_TOKEN = 8
"""Candidates at the start, for each token of the vocabulary: SentencePiece starts from a million for 8,000."""

_KEPT_A_ROUND = 0.75
"""Share of the pieces that a round of pruning keeps (Kudo 2018 prunes to 80 %; SentencePiece's factor is 0.75)."""

_EM_STEPS = 2
"""Expectation-maximization steps between prunings, as in SentencePiece."""

_MAX_WORDS = 200_000
"""Distinct words that the statistics hold, the most frequent: some 400 MB while training."""


class Config(TokenizerConfig):
    """Unigram with XLNet's special tokens; 256 tokens of the vocabulary are the bytes."""

    coverage: Annotated[float, Gt(0), Le(1)] = 0.9995
    """Share of the text's characters that have a token of their own; the rarest are spelled in bytes."""

    max_piece: Annotated[int, Ge(2), Le(32)] = 16
    """Characters of the longest piece."""

    @property
    def default_special(self) -> dict[Role, str]:
        return {
            "unk": "<unk>",
            "bos": "<s>",
            "eos": "</s>",
            "pad": "<pad>",
            "cls": "<cls>",
            "sep": "<sep>",
            "mask": "<mask>",
        }

    def build(self) -> "UnigramTrainer":
        return UnigramTrainer(self)


class UnigramTrainer:
    """Learns pieces and their probabilities; the same texts give the same file."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer of exactly `vocab_size` tokens, or a UserError that says how many the text yields."""
        config = self.config
        stream = TextStream(texts)
        words = _words(stream)
        characters = stream.characters
        characters["▁"] = characters.pop(" ", 0) + characters.get("▁", 0)
        kept = frequent({c: n for c, n in characters.items() if n}, config.coverage)
        alphabet = sorted({*kept, *"".join(config.reserved), *"".join(_BYTE_NAMES)})
        fixed = len(config.reserved) + 256
        if config.vocab_size < fixed + len(alphabet):
            raise UserError(
                f"vocab_size must be at least {fixed + len(alphabet)}: special tokens, bytes, characters",
                got=config.vocab_size,
                do="raise vocab_size, or lower coverage to spell rare characters in bytes",
            )
        pieces = self._learn(words, alphabet, config.vocab_size - fixed)
        must_fill(config.vocab_size, fixed + len(pieces))
        return self._tokenizer(pieces)

    def _learn(self, words: dict[str, int], alphabet: list[str], num_pieces: int) -> list[tuple[str, float]]:
        """(piece, log probability), likeliest first; every character of the alphabet is among them."""
        lattice = Lattice(words, alphabet, self.config.max_piece, max_seeds=_SEEDS_A_TOKEN * num_pieces)
        while True:
            for _ in range(_EM_STEPS):
                lattice.maximize()
            if lattice.num_pieces <= num_pieces:
                break
            lattice.prune(max(num_pieces, int(lattice.num_pieces * _KEPT_A_ROUND)))
        return lattice.pieces()

    def _tokenizer(self, pieces: list[tuple[str, float]]) -> Tokenizer:
        config = self.config
        # Six decimals: the file shows what the text decides, not the last bits of a sum.
        vocabulary = [(token, _SPECIAL_SCORE) for token in config.reserved]
        vocabulary += [(name, _BYTE_SCORE) for name in _BYTE_NAMES]
        vocabulary += [(piece, round(score, 6)) for piece, score in pieces]
        unk = config.reserved.index(config.special.by_role["unk"])
        raw = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=unk, byte_fallback=True))
        raw.pre_tokenizer = pre_tokenizer()
        raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        raw.add_special_tokens(added(config.reserved))
        return Tokenizer(raw, config.special, kind="unigram")


def pre_tokenizer() -> pre_tokenizers.Sequence:
    """Line ends and digits stand alone; a word begins at its space. No space is invented at the start of a text."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(NUMBERS_AND_LINES), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
        ]
    )


def _words(stream: TextStream) -> dict[str, int]:
    """How often each word comes, as the pre-tokenizer cuts them, the most frequent `_MAX_WORDS`; ties by text."""
    spans: Counter[str] = Counter()
    for chunk in stream:
        first, *rest = chunk.split(" ")
        spans.update(" " + span for span in rest)
        spans[first] += 1
        if len(spans) > 4 * _MAX_WORDS:  # bounded memory: the rarest of what was seen so far can be spared
            spans = Counter(dict(sorted(spans.items(), key=lambda item: (-item[1], item[0]))[: 2 * _MAX_WORDS]))
    cut = pre_tokenizer()
    words: Counter[str] = Counter()
    for span, count in spans.items():
        for word, _ in cut.pre_tokenize_str(span):
            words[word] += count
    return dict(sorted(words.items(), key=lambda item: (-item[1], item[0]))[:_MAX_WORDS])
