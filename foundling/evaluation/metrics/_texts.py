"""Texts as golds and answers."""

from collections.abc import Sequence
from typing import Any

from foundling.core.errors import UserError
from foundling.corpus.scripts import script_of


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


def script_of_golds(golds: Sequence[Sequence[str]]) -> str:
    """The script of most of the texts, as `script_of` tells it; `cjk` where no spaces stand between words."""
    return script_of("\n".join(text for texts in golds for text in texts))
