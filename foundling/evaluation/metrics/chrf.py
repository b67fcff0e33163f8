"""chrF of translations, the F-score of character n-grams (Popović 2015), by sacrebleu; 0 to 100.

With several references an example is counted against the one that fits it best.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from sacrebleu import __version__
from sacrebleu.metrics.chrf import CHRF

from foundling.evaluation.metrics._sacrebleu import sacrebleu_sums
from foundling.evaluation.metrics._texts import text_lists
from foundling.evaluation.metrics.base import MetricConfig, Sums, examples_of


class Config(MetricConfig):
    """sacrebleu's settings; others are left as they are there."""

    kind: str = "chrf"
    """Name of the part."""
    word_order: Annotated[int, Field(ge=0, le=2)] = 0
    """Words of the longest word n-gram; 2 is chrF++."""
    lowercase: bool = False
    """Whether case makes no difference."""

    def build(self) -> "Chrf":
        return Chrf(self)


class Chrf:
    best = "chrf"
    higher_is_better = True

    def __init__(self, config: Config) -> None:
        self.config = config
        case = "lc" if config.lowercase else "mixed"
        self.name = "chrF2" + "+" * config.word_order
        counted = f"case:{case}|eff:yes|nc:6|nw:{config.word_order}|space:no"
        self.settings = f"{self.name}|{counted}|version:{__version__} (sacrebleu)"

    def score(self, golds: Sequence[Any], answers: Sequence[Any]) -> Sums:
        """golds: the reference texts of each example, at least one. answers: texts."""
        examples = examples_of(golds, answers)
        measure = CHRF(word_order=self.config.word_order, lowercase=self.config.lowercase)
        references = text_lists(golds)
        figures = lambda score: {"chrf": float(score.score)}
        return sacrebleu_sums(self.name, measure, references, answers, examples, figures)
