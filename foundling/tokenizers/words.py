"""Words: each is a token, cut at white space and around punctuation; Chinese characters stand alone. What comes too
rarely is `<unk>`.

Decoding joins words with single spaces: it does not give the text back exactly.
"""

from collections.abc import Iterable
from typing import Annotated

import tokenizers
from annotated_types import Ge
from tokenizers import models, normalizers, pre_tokenizers, trainers

from foundling.core.errors import UserError
from foundling.core.units import Count
from foundling.tokenizers._text import TextStream, must_fill
from foundling.tokenizers.base import Role, Tokenizer, TokenizerConfig, added

_ALL = 2**31
"""More words than any text has."""


class Config(TokenizerConfig):
    """Words; `<|endoftext|>` ends documents, begins them and pads, `<unk>` stands for all other words."""

    vocab_size: Annotated[Count, Ge(0)] = 0
    """Tokens in the vocabulary, special tokens included, of the most frequent words. 0: all that come often enough."""

    min_count: Annotated[int, Ge(1)] = 2
    """Words that come less often are unknown. (The original word2vec: 5.)"""

    lowercase: bool = True
    """Fold case and strip accents."""

    @property
    def default_special(self) -> dict[Role, str]:
        return {"unk": "<unk>", "eos": "<|endoftext|>", "bos": "<|endoftext|>", "pad": "<|endoftext|>"}

    def build(self) -> "WordTrainer":
        return WordTrainer(self)


class WordTrainer:
    """Counts words; ids follow frequency, ties the alphabet."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer of the most frequent words, or a UserError that says how many the text has."""
        config, reserved = self.config, self.config.reserved
        if 0 < config.vocab_size <= len(reserved):
            raise UserError(
                f"vocab_size of a words tokenizer must be more than its {len(reserved)} special tokens",
                got=config.vocab_size,
            )
        counting = self._raw(models.WordLevel(unk_token=config.special.by_role["unk"]))
        trainer = trainers.WordLevelTrainer(
            vocab_size=config.vocab_size or _ALL, min_frequency=config.min_count, special_tokens=reserved,
            show_progress=False,
        )  # fmt: skip
        counting.train_from_iterator(TextStream(texts), trainer)
        vocabulary = counting.get_vocab(with_added_tokens=True)
        must_fill(config.vocab_size, len(vocabulary))
        if len(vocabulary) == len(reserved):
            raise UserError(
                "the text must hold a word that comes often enough", got=f"none with min_count {config.min_count}"
            )
        raw = self._raw(models.WordLevel(vocabulary, unk_token=config.special.by_role["unk"]))
        raw.add_special_tokens(added(reserved))
        return Tokenizer(raw, config.special, kind="words")

    def _raw(self, model: models.WordLevel) -> tokenizers.Tokenizer:
        raw = tokenizers.Tokenizer(model)
        raw.normalizer = normalizers.BertNormalizer(lowercase=self.config.lowercase)
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return raw
