"""Characters: each is a token, one that training did not meet (or that did not fit) is `<unk>`."""

from collections.abc import Iterable
from typing import Annotated

import tokenizers
from annotated_types import Ge
from tokenizers import decoders, models, pre_tokenizers

from foundling.core.errors import UserError
from foundling.core.units import Count
from foundling.tokenizers._rules import CHARACTER_PATTERN
from foundling.tokenizers._text import TextStream, frequent, must_fill
from foundling.tokenizers.base import Role, Tokenizer, TokenizerConfig, added


class Config(TokenizerConfig):
    """Characters; `<|endoftext|>` ends documents, begins them and pads, `<unk>` stands for unknown characters."""

    vocab_size: Annotated[Count, Ge(0)] = 0
    """Tokens in the vocabulary, special tokens included, of the most frequent characters. 0: all of the text's."""

    @property
    def default_special(self) -> dict[Role, str]:
        return {"unk": "<unk>", "eos": "<|endoftext|>", "bos": "<|endoftext|>", "pad": "<|endoftext|>"}

    def build(self) -> "CharacterTrainer":
        return CharacterTrainer(self)


class CharacterTrainer:
    """Counts characters; ids follow frequency, ties the code."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer of the most frequent characters, or a UserError that says how many the text has."""
        config, reserved = self.config, self.config.reserved
        if 0 < config.vocab_size <= len(reserved):
            raise UserError(
                f"vocab_size of a char tokenizer must be more than its {len(reserved)} special tokens",
                got=config.vocab_size,
            )
        stream = TextStream(texts)
        for _ in stream:
            continue
        tokens = [*reserved, *frequent(stream.characters, 1.0)]
        must_fill(config.vocab_size, len(tokens))
        tokens = tokens[: config.vocab_size or None]
        vocabulary = {token: i for i, token in enumerate(tokens)}
        raw = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=config.special.by_role["unk"]))
        raw.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(CHARACTER_PATTERN), "isolated")
        raw.decoder = decoders.Fuse()
        raw.add_special_tokens(added(reserved))
        return Tokenizer(raw, config.special, kind="char")
