"""Corpus BLEU of translations (Papineni et al. 2002), by sacrebleu (Post 2018, arXiv:1804.08771); 0 to 100."""

from collections.abc import Sequence
from typing import Any, Literal

from sacrebleu import __version__
from sacrebleu.metrics.bleu import BLEU

from foundling.evaluation.metrics._sacrebleu import sacrebleu_sums
from foundling.evaluation.metrics._texts import rule_of_golds, text_lists
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of


class Config(MetricConfig):
    """sacrebleu's settings; others are left as they are there."""

    kind: str = "bleu"
    """Name of the part."""
    tokenize: Literal["auto", "13a", "intl", "zh", "char", "none"] = "auto"
    """sacrebleu's tokenizer; auto: zh where references are Chinese, char where they are in another script without
    spaces, else 13a."""
    lowercase: bool = False
    """Whether case makes no difference."""

    def build(self) -> "Bleu":
        return Bleu(self)


class Bleu:
    best = "bleu"
    higher_is_better = True

    def __init__(self, config: Config) -> None:
        self.config = config
        case = "lc" if config.lowercase else "mixed"
        self.settings = f"BLEU|case:{case}|eff:no|tok:{config.tokenize}|smooth:exp|version:{__version__} (sacrebleu)"

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds: the reference texts of each example, at least one. answers: texts, not tokenized."""
        examples = examples_of(golds, answers)
        references, tokenize = text_lists(golds), self.config.tokenize
        if tokenize == "auto":
            rule = rule_of_golds(references)
            tokenize = "13a" if rule == "words" else rule
        measure = BLEU(lowercase=self.config.lowercase, tokenize=tokenize)
        figures = lambda score: {"bleu": float(score.score), "brevity_penalty": float(score.bp)}
        return sacrebleu_sums("BLEU", measure, references, answers, examples, figures)
