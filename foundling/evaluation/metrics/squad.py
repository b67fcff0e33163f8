"""Exact match and F1 of short answers, as the scripts of SQuAD 1.1 and 2.0 (arXiv:1606.05250, 1806.03822) have them.

An answer gets the best of what it gets against each accepted text. Before two texts are compared they are normalised:

- `en`: lower case; ASCII punctuation goes; the words a, an and the go; words stand between white space;
- `zh`: lower case; all punctuation goes; each Chinese character (U+4E00 - U+9FA5) is a word, and what stands between
  them is cut at white space. That is MLQA's rule (arXiv:1910.07475) for the Chinese of MLQA and XQuAD. The script of
  CMRC 2018 counts the longest common run of words instead of the common ones, so its F1 is another, and lower;
- `char`: lower case; all punctuation goes; in scripts without spaces each character is a word. Ours, for languages that
  neither rule cuts, such as Japanese and Thai.

F1 is that of the two bags of words. Where no answer is right, "" gets 1 and every other answer 0. An accepted text of
which nothing is left counts as none, as in SQuAD 2.0's script.
"""

# Shapes: N = examples.

import math
import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from foundling.corpus.scripts import words_of
from foundling.evaluation.metrics._texts import answer_texts, rule_of_golds, text_lists
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CHINESE = re.compile("([\u4e00-\u9fa5])")


class Config(MetricConfig):
    """How texts are normalised."""

    kind: str = "squad"
    """Name of the part."""
    language: Literal["auto", "en", "zh", "char"] = "auto"
    """Whose rule: en, which is used for other languages with spaces too, zh, or char; auto: zh where the accepted texts
    are Chinese, char where they are in another script without spaces."""

    def build(self) -> "Squad":
        return Squad(self.language)


class Squad:
    best = "f1"
    higher_is_better = True

    def __init__(self, language: str) -> None:
        self.language = language
        self.settings = _settings(language)

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds: the accepted texts of each example, none where no answer is right. answers: texts, "" for no answer.

        Where some examples have an answer and some have none, the figures of each kind stand beside the whole's.
        """
        examples = examples_of(golds, answers)
        accepted = text_lists(golds, may_be_empty=True)
        language = self.language
        if language == "auto":
            rule = rule_of_golds(accepted)
            language = "en" if rule == "words" else rule
        sums_N23 = np.zeros((len(golds), 2, 3))  # with an answer and without: exact, F1, number
        for number, (texts, answer) in enumerate(zip(accepted, answer_texts(answers), strict=True)):
            exact, f1, answerable = _compare(texts, answer, language)
            sums_N23[number, 0 if answerable else 1] = exact, f1, 1
        mixed = bool((sums_N23[:, :, 2].sum(0) > 0).all())

        def figures(sums_23: np.ndarray, num: int) -> dict[str, float]:
            exact, f1, _ = (sums_23.sum(0) / num).tolist()
            found = {"f1": f1, "exact_match": exact}
            if mixed:
                for name, (exact, f1, number) in zip(("answerable", "unanswerable"), sums_23.tolist(), strict=True):
                    found[f"f1/{name}"] = f1 / number if number else math.nan
                    found[f"exact_match/{name}"] = exact / number if number else math.nan
            return found

        return Sums(_settings(language), True, examples, sums_N23, figures)


def _settings(language: str) -> str:
    rule = {
        "en": "lower case, no ASCII punctuation, no a/an/the",
        "zh": "lower case, no punctuation, by Chinese character (MLQA)",
        "char": "lower case, no punctuation, by character where no spaces stand between words",
        "auto": "by the rule for English, or by character",
    }[language]
    return f"SQuAD exact match and F1, best over accepted texts; {rule}"


def _compare(accepted: list[str], answer: str, language: str) -> tuple[float, float, bool]:
    """Exact match, F1, whether there is an answer."""
    golds = [words for text in accepted if (words := normalised(text, language))]
    said = normalised(answer, language)
    if not golds:
        right = float(not said)
        return right, right, False
    return float(said in golds), max(_f1(words, said) for words in golds), True


def _f1(gold: list[str], said: list[str]) -> float:
    common = (Counter(gold) & Counter(said)).total()
    return 2 * common / (len(gold) + len(said))


def normalised(text: str, language: str) -> list[str]:
    """The words of a text that are compared."""
    text = text.lower()
    if language == "char":
        return words_of(text)
    if language == "zh":
        return _CHINESE.sub(r" \1 ", text.translate(_all_punctuation())).split()
    return _ARTICLES.sub(" ", text.translate(_ASCII_PUNCTUATION)).split()


_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


@cache
def _all_punctuation() -> dict[int, None]:
    codes = (code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P"))
    return {**dict.fromkeys(codes), **dict.fromkeys(map(ord, string.punctuation))}
