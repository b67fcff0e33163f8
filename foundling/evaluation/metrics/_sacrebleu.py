"""BLEU and chrF through sacrebleu: its tokenizers, counts and formulas, with the counts kept for each example."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import sacrebleu.metrics.base

from foundling.evaluation.metrics._texts import answer_texts
from foundling.evaluation.metrics.base import Sums


def sacrebleu_sums(
    name: str,
    measure: "sacrebleu.metrics.base.Metric",
    references: Sequence[Sequence[str]],
    answers: Sequence[Any],
    examples: str,
    figures: Callable[[Any], dict[str, float]],
) -> Sums:
    """What sacrebleu counts in each answer. name: stands before its signature; figures: from one of its scores."""
    # One stream for each reference, and None where an example has fewer: what sacrebleu takes.
    streams = list(map(list, zip_longest(*references)))
    counts_N = np.array(measure._extract_corpus_statistics(answer_texts(answers), streams))
    return Sums(
        f"{name}|{measure.get_signature()} (sacrebleu)",
        True,
        examples,
        counts_N,
        lambda sums, num: figures(measure._compute_score_from_stats(sums.tolist())),
    )
