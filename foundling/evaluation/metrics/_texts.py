"""Texts as golds and answers."""

import re
from collections.abc import Sequence
from typing import Any, Literal

from foundling.core.errors import UserError
from foundling.corpus.scripts import HAN, UNSPACED, script_of

_CHINESE_SHARE = 0.9
"""Of the letters of scripts without spaces, how many are Han in Chinese text; in Japanese two thirds at most."""


def text_lists(golds: Sequence[Any], *, may_be_empty: bool = False) -> list[list[str]]:
    """The texts of each gold: a text stands for the list of it. UserError: something else, or an empty list."""
    found = [[gold] if isinstance(gold, str) else gold for gold in golds]
    for texts in found:
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise UserError("a gold must be a text or a list of texts", got=f"{texts!r:.60}")
        if not texts and not may_be_empty:
            raise UserError("a gold must have a text to compare with", got="none")
    return [list(texts) for texts in found]


def answer_texts(answers: Sequence[Any]) -> list[str]:
    """Answers as they are; UserError where one is no text."""
    for answer in answers:
        if not isinstance(answer, str):
            raise UserError("an answer must be a text", got=f"{answer!r:.60}")
    return list(answers)


def rule_of_golds(golds: Sequence[Sequence[str]]) -> Literal["words", "zh", "char"]:
    """How texts are cut that are compared with these: at spaces; by Chinese character; or by character, in the other
    scripts without spaces (Japanese, whose text has kana; Thai, Lao, Khmer, Myanmar)."""
    text = "\n".join(text for texts in golds for text in texts)
    if script_of(text) != "cjk":
        return "words"
    unspaced = re.findall(f"[{UNSPACED}]", text)
    return "zh" if len(re.findall(f"[{HAN}]", text)) > _CHINESE_SHARE * len(unspaced) else "char"


def script_of_golds(golds: Sequence[Sequence[str]]) -> str:
    """The script of most of the texts, as `script_of` tells it; `cjk` where no spaces stand between words."""
    return script_of("\n".join(text for texts in golds for text in texts))
