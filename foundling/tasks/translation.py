"""Texts to texts of another language, by an encoder-decoder (Vaswani et al. 2017) or a decoder; BLEU and chrF."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from foundling.tasks._writing import Example, Writing, WritingConfig
from foundling.tasks.base import Facts, Measured
from foundling.tokenizers.base import Tokenizer


class Config(WritingConfig):
    kind: str = "translation"
    """Name of the part."""
    bleu_tokenize: Literal["auto", "13a", "intl", "zh", "char", "none"] = "auto"
    """How BLEU cuts words, by sacrebleu's names; auto: zh where references are Chinese, char where they are in another
    script without spaces, else 13a."""

    metric: ClassVar[str] = "bleu"

    def build(self, tokenizer: Tokenizer, body: Any, facts: Facts) -> "Translation":
        return Translation(self, tokenizer, body, facts)


class Translation(Writing):
    config: Config

    def measured(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> list[Measured]:
        golds, texts = [list(e.targets) for e in examples], [a["text"] for a in answers]
        return [
            Measured("bleu", golds, texts, {"tokenize": self.config.bleu_tokenize}),
            Measured("chrf", golds, texts, {}),
        ]
