"""More tokens for a tokenizer that exists: words of a field that it cuts into many pieces. Old ids stay as they are."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.tokenizers.base import Tokenizer

MIN_PIECES = 3
"""Tokens of a word, with the space before it, from which a token of its own is worth a row."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese and Khmer, kana and Han."""
_LETTER = f"(?:(?![{_UNSPACED}])[^\\W\\d_])"
_WORD = re.compile(f"(?<![^\\W\\d_]){_LETTER}{{2,30}}(?![^\\W\\d_])")
"""Letters side by side, no more than a word has. Where no spaces stand between words, as in Chinese, letters side by
side are a clause: such words are given as a list."""
_MAX_COUNTED = 2_000_000
"""Different words that are counted at once; beyond, those that came once so far are forgotten."""


def extend_tokenizer(tokenizer: Tokenizer, words: Sequence[str]) -> Tokenizer:
    """The tokenizer with a token for each word that it has none for; new ids follow the old ones.

    WordPiece and word vocabularies take the words in as they are read (after normalization). Others find them as
    plain added tokens before they cut a text: whole words, where the script has case. UserError: a word is empty or
    holds white space, or none is new.
    """
    for word in words:
        if not word or any(character.isspace() for character in word):
            raise UserError("each new token must be a word without white space", got=repr(word))
    plan = json.loads(tokenizer.json)
    raw = tokenizers.Tokenizer.from_str(tokenizer.json)
    native = plan["model"]["type"] in ("WordPiece", "WordLevel") and _stays_whole(raw, "word")
    normalized = [raw.normalizer.normalize_str(word) if native and raw.normalizer else word for word in words]
    new = [word for word in dict.fromkeys(normalized) if tokenizer.id_of(word) is None]
    if native:
        new = [word for word in new if _stays_whole(raw, word)]
    if not new:
        raise UserError("the words must hold one that is no token yet", got=f"{len(words)} words, all known or cut")
    if native:
        plan["model"]["vocab"] |= {word: tokenizer.vocab_size + i for i, word in enumerate(new)}
        raw = tokenizers.Tokenizer.from_str(json.dumps(plan))
    else:
        raw.add_tokens([tokenizers.AddedToken(word, single_word=word.lower() != word.upper()) for word in new])
    logger.info("tokenizer: %s of %s words are new tokens", f"{len(new):,}", f"{len(words):,}")
    return Tokenizer(
        raw, tokenizer.special, kind=tokenizer.kind,
        max_length=tokenizer.max_length, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _stays_whole(raw: tokenizers.Tokenizer, word: str) -> bool:
    """Whether the pre-tokenizer leaves the word as it is."""
    return raw.pre_tokenizer is None or [piece for piece, _ in raw.pre_tokenizer.pre_tokenize_str(word)] == [word]


def words_worth_a_token(tokenizer: Tokenizer, texts: Iterable[str], number: int) -> list[str]:
    """The `number` words of the texts whose own token would save the most tokens: count x (pieces - 1), of at least
    `MIN_PIECES` pieces, ties by the alphabet."""
    counts: Counter[str] = Counter()
    normalizer = tokenizers.Tokenizer.from_str(tokenizer.json).normalizer
    for text in texts:
        counts.update(_WORD.findall(normalizer.normalize_str(text) if normalizer else text))
        if len(counts) > _MAX_COUNTED:
            counts = Counter({word: count for word, count in counts.items() if count > 1})
    savings = {}
    for word, count in counts.items():
        num_pieces = len(tokenizer.encode(f" {word}")) if count > 1 else 0
        if num_pieces >= MIN_PIECES:
            savings[word] = count * (num_pieces - 1)
    if not savings:
        raise UserError(
            f"the texts must hold words of {MIN_PIECES} tokens or more that come twice, parted by spaces",
            got="none",
            do="give a list of them: --words FILE (of Chinese and other text without spaces always)",
        )
    return sorted(savings, key=lambda word: (-savings[word], word))[:number]


def read_words(path: Path) -> list[str]:
    """One word a line, in a UTF-8 text file; blank lines are passed over. UserError: it cannot be read or is empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list of words must be a UTF-8 text file: {error}") from None
    words = [line.strip() for line in lines if line.strip()]
    if not words:
        raise UserError("the list of words must hold one word a line", got=f"{path}, empty")
    return words
