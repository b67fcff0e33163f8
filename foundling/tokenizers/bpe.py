"""Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) over bytes (GPT-2, Radford et al. 2019, 2.2).

Every text has ids and every text comes back exactly: the 256 bytes are in the vocabulary, nothing is unknown.
"""

from collections.abc import Iterable
from typing import Annotated

import tokenizers
from annotated_types import Ge
from tokenizers import decoders, models, pre_tokenizers, trainers

from foundling.core.errors import UserError
from foundling.tokenizers._rules import QWEN2_PATTERN
from foundling.tokenizers._text import TextStream, must_fill
from foundling.tokenizers.base import Role, Tokenizer, TokenizerConfig, added

_LONGEST_TOKEN = 64
"""Longest token in characters of the byte alphabet: rules of dashes and base64 would fill a vocabulary otherwise."""


class Config(TokenizerConfig):
    """Byte-level BPE; one special token, `<|endoftext|>`, ends documents, begins them and pads."""

    min_count: Annotated[int, Ge(1)] = 2
    """A pair of tokens is merged only when it comes at least so often."""

    @property
    def default_special(self) -> dict[Role, str]:
        return {"eos": "<|endoftext|>", "bos": "<|endoftext|>", "pad": "<|endoftext|>"}

    def build(self) -> "BytePairTrainer":
        return BytePairTrainer(self)


class BytePairTrainer:
    """Learns merges; the same texts give the same file (ties go to the pair with the smaller ids)."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer of exactly `vocab_size` tokens, or a UserError that says how many the text yields."""
        config = self.config
        smallest = 256 + len(config.reserved)
        if config.vocab_size < smallest:
            raise UserError(
                f"vocab_size of a bpe tokenizer must be at least {smallest} (256 bytes and the special tokens)",
                got=config.vocab_size,
            )
        raw = tokenizers.Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(QWEN2_PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        raw.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_count,
            special_tokens=added(config.reserved),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=_LONGEST_TOKEN,
            show_progress=False,
        )
        raw.train_from_iterator(TextStream(texts), trainer)
        must_fill(config.vocab_size, raw.get_vocab_size())
        return Tokenizer(raw, config.special, kind="bpe")
