"""WordPiece as BERT has it (Devlin et al. 2019, arXiv:1810.04805, section 3; words: Wu et al. 2016, arXiv:1609.08144).

A word is its longest known prefix, then the longest known `##` continuation, and so on; a word that cannot be spelled
is `[UNK]`. Merges are learned as byte pairs are, as the `tokenizers` library does. Decoding does not give the text
back exactly: white space is not kept and `lowercase` folds case and accents.
"""

import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Annotated

import tokenizers
from annotated_types import Ge, Gt, Le
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.tokenizers._text import TextStream, frequent, must_fill, visible
from foundling.tokenizers.base import Role, Tokenizer, TokenizerConfig, added


class Config(TokenizerConfig):
    """WordPiece with BERT's special tokens, in the order [PAD] [UNK] [CLS] [SEP] [MASK] from id 0."""

    lowercase: bool = True
    """Fold case and strip accents (the uncased models of BERT)."""

    min_count: Annotated[int, Ge(1)] = 2
    """A pair of tokens is merged only when it comes at least so often."""

    coverage: Annotated[float, Gt(0), Le(1)] = 0.9995
    """Share of the text's characters that the alphabet covers; the rarest are left out and make their words [UNK]."""

    @property
    def default_special(self) -> dict[Role, str]:
        return {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}

    def build(self) -> "WordPieceTrainer":
        return WordPieceTrainer(self)


@cache
def _continuations() -> list[str]:
    """`##c` for every character that can stand inside a word of BERT's pre-tokenizer (CJK stands alone)."""
    characters = (chr(code) for code in range(sys.maxunicode + 1))
    return [f"##{c}" for c in characters if unicodedata.category(c)[0] in "LMNS" and not _cjk(c)]


def _cjk(character: str) -> bool:
    """Whether BertNormalizer sets the character apart: a Han character."""
    name = unicodedata.name(character, "")
    return name.startswith(("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH"))


class WordPieceTrainer:
    """Learns a vocabulary; the same texts give the same file."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer of exactly `vocab_size` tokens, or a UserError that says how many the text yields."""
        config = self.config
        stream = TextStream(texts)
        learned = self._learn(stream)
        alphabet = self._alphabet(stream.characters)
        letters = {character for character in alphabet if f"##{character}" in _continuation_set()}
        base = [*config.reserved, *sorted(alphabet), *(f"##{c}" for c in sorted(letters))]
        if config.vocab_size < len(base):
            raise UserError(
                f"vocab_size must be at least {len(base)}: the special tokens and the text's alphabet",
                got=config.vocab_size,
                do="raise vocab_size, or lower coverage to leave rare characters out",
            )
        known = set(base)
        merges = [t for t in learned if t not in known and alphabet.issuperset(t.removeprefix("##"))]
        must_fill(config.vocab_size, len(base) + len(merges))
        return self._tokenizer((base + merges)[: config.vocab_size])

    def _raw(self, model: models.WordPiece) -> tokenizers.Tokenizer:
        raw = tokenizers.Tokenizer(model)
        raw.normalizer = self._normalizer()
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return raw

    def _normalizer(self) -> normalizers.BertNormalizer:
        return normalizers.BertNormalizer(lowercase=self.config.lowercase)

    def _learn(self, stream: TextStream) -> list[str]:
        """Merged tokens, the first learned first.

        The library numbers `##c` tokens in the order of a hash map, which changes from run to run, and breaks ties
        by number. Naming all of them first, as special tokens of a tokenizer that is then thrown away, settles the
        numbers. Twice the asked merges are learned, since those with characters outside the alphabet fall away.
        """
        fixed = _continuations()
        trainer = trainers.WordPieceTrainer(
            vocab_size=len(fixed) + 2 * self.config.vocab_size,
            min_frequency=self.config.min_count,
            special_tokens=fixed,
            show_progress=False,
        )
        raw = self._raw(models.WordPiece(unk_token="[UNK]"))
        raw.train_from_iterator(stream, trainer)
        vocabulary = raw.get_vocab(with_added_tokens=False)
        return [token for token in sorted(vocabulary, key=vocabulary.__getitem__) if len(token.removeprefix("##")) > 1]

    def _alphabet(self, counts: dict[str, int]) -> set[str]:
        """The characters of the normalized text that are kept."""
        normalizer, normalized = self._normalizer(), dict[str, int]()
        for character, count in counts.items():
            for result in normalizer.normalize_str(character):
                if not result.isspace():
                    normalized[result] = normalized.get(result, 0) + count
        kept = frequent(normalized, self.config.coverage)
        if len(kept) < len(normalized):
            rare = sorted(set(normalized) - set(kept))
            few = " ".join(visible(c) for c in rare[:8])
            logger.info("%d rare characters are left out of the alphabet (%s ...)", len(rare), few)
        return set(kept)

    def _tokenizer(self, tokens: list[str]) -> Tokenizer:
        special = self.config.special
        unk, cls, sep = special.by_role["unk"], special.by_role["cls"], special.by_role["sep"]
        vocabulary = {token: i for i, token in enumerate(tokens)}
        raw = self._raw(models.WordPiece(vocabulary, unk_token=unk, max_input_chars_per_word=100))
        raw.decoder = decoders.WordPiece(prefix="##")
        raw.add_special_tokens(added(self.config.reserved))
        raw.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}",
            pair=f"{cls} $A {sep} $B:1 {sep}:1",
            special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
        )
        return Tokenizer(raw, special, kind="wordpiece")


@cache
def _continuation_set() -> frozenset[str]:
    return frozenset(_continuations())
