"""Our word vectors (models/word2vec.py). Other programs read the `vectors.txt` of the run."""

from typing import Any

from foundling.models.hub._own import OwnFormat
from foundling.models.word2vec import Config


class Format(OwnFormat):
    model_type = "foundling-word2vec"
    architecture = "FoundlingWord2Vec"
    config_class = Config
    pipeline = None
    head = "context.weight"

    def writes(self, config: Any) -> bool:
        return isinstance(config, Config)
