"""Our encoder-decoder (models/seq2seq.py): transformers has no class that computes it."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from foundling.data.batch import Batch
from foundling.models.hub._own import OwnFormat
from foundling.models.seq2seq import Config


class Format(OwnFormat):
    model_type = "foundling-seq2seq"
    architecture = "FoundlingSeq2Seq"
    config_class = Config
    pipeline = "text2text-generation"

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config)

    def probe(self, model: Any, batch: Batch) -> list[Tensor]:
        """The same random tokens are source and target."""
        with_sources = replace(
            batch,
            source_tokens_S=batch.tokens_N,
            source_positions_S=batch.positions_N,
            source_bounds_R1=batch.bounds_R1,
            max_source_length=batch.max_row_length,
        )
        return super().probe(model, with_sources)
