"""Long texts to short ones, by an encoder-decoder or a decoder; ROUGE."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from foundling.tasks._writing import Example, Writing, WritingConfig
from foundling.tasks.base import Facts, Measured
from foundling.tokenizers.base import Tokenizer


class Config(WritingConfig):
    kind: str = "summarization"
    """Name of the part."""

    metric: ClassVar[str] = "rougeL"
    roles: ClassVar[tuple[str, str]] = ("document", "summary")

    def build(self, tokenizer: Tokenizer, body: Any, facts: Facts) -> "Summarization":
        return Summarization(self, tokenizer, body, facts)


class Summarization(Writing):
    config: Config

    def measured(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> list[Measured]:
        golds, texts = [list(e.targets) for e in examples], [a["text"] for a in answers]
        return [Measured("rouge", golds, texts, {})]
