"""ROUGE-1, ROUGE-2 and ROUGE-L of summaries (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries").

The figures are those of the package rouge-score without stemming, which are those of ROUGE-1.5.5's defaults; published
figures are often with stemming, and a little higher. ROUGE-L is over the whole text. With several references an example
gets, for each measure, its best F1 and the precision and recall that belong to it.

Our own, because that package has not been released since 2022, imports nltk whole, and drops every letter but a - z:
nothing is left of Chinese or Russian.
"""

# Shapes: N = examples; 3 measures, 3 = precision, recall, F1.

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from foundling.corpus.scripts import words_of
from foundling.evaluation.metrics._counts import rates
from foundling.evaluation.metrics._texts import answer_texts, script_of_golds, text_lists
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of

MEASURES = ("rouge1", "rouge2", "rougeL")
_ASCII = re.compile(r"[a-z0-9]+")


class Config(MetricConfig):
    """What words are, and which measure is the main figure."""

    kind: str = "rouge"
    """Name of the part."""
    words: Literal["auto", "ascii", "any"] = "auto"
    """ascii: runs of a - z and 0 - 9 in lower case, as rouge-score has it; any: runs of letters and digits of any
    script, where no spaces stand (Chinese) single characters; auto: ascii for references in Latin letters, else any."""
    main: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """The main figure; all are computed."""

    def build(self) -> "Rouge":
        return Rouge(self)


class Rouge:
    higher_is_better = True

    def __init__(self, config: Config) -> None:
        self.words, self.best = config.words, config.main
        self.settings = _settings(config.words)

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds: the reference texts of each example, at least one. answers: texts."""
        examples = examples_of(golds, answers)
        references = text_lists(golds)
        words = self.words
        if words == "auto":
            words = "ascii" if script_of_golds(references) == "latin" else "any"
        split: Callable[[str], list[str]] = (lambda text: _ASCII.findall(text.lower())) if words == "ascii" else _any
        rates_N33 = np.zeros((len(golds), 3, 3))
        for number, (texts, answer) in enumerate(zip(references, answer_texts(answers), strict=True)):
            said = split(answer)
            each_R33 = rates(np.array([_overlaps(split(text), said) for text in texts]))
            best = each_R33[:, :, 2].argmax(0)  # of equal ones the first
            rates_N33[number] = each_R33[best, np.arange(3)]
        return Sums(_settings(words), True, examples, rates_N33, _means)


def _settings(words: str) -> str:
    kinds = {
        "ascii": "runs of a-z and 0-9",
        "any": "words of any script, characters where no spaces stand",
        "auto": "runs of a-z and 0-9, or of any script",
    }
    return f"ROUGE F1 (rouge-score's), no stemming, lower case, {kinds[words]}; best of several references"


def _means(sums_33: np.ndarray, num: int) -> dict[str, float]:
    means = dict(zip(MEASURES, (sums_33 / num).tolist(), strict=True))
    return {
        **{name: f1 for name, (_, _, f1) in means.items()},
        **{f"{name}_precision": precision for name, (precision, _, _) in means.items()},
        **{f"{name}_recall": recall for name, (_, recall, _) in means.items()},
    }


def _any(text: str) -> list[str]:
    return words_of(text.lower())


def _overlaps(gold: list[str], said: list[str]) -> list[tuple[int, int, int]]:
    """What is common, said and true, for each measure: words, pairs of words, and words in order."""
    found = []
    for n in (1, 2):
        true_ngrams, said_ngrams = (Counter(zip(*(side[i:] for i in range(n)), strict=False)) for side in (gold, said))
        found.append(((true_ngrams & said_ngrams).total(), said_ngrams.total(), true_ngrams.total()))
    return [*found, (lcs_length(gold, said), len(said), len(gold))]


def lcs_length(one: Sequence[str], two: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bits: a column of the table is one integer, whose zeros are the
    steps (Hyyrö 2004, "Bit-parallel LCS-length computation revisited")."""
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(one)) - 1
    column = whole
    for word in two:
        matches = column & places.get(word, 0)
        column = ((column + matches) | (column - matches)) & whole
    return len(one) - column.bit_count()
