from functools import cache

import pytest

from foundling.core.registry import load_part
from foundling.tokenizers.base import Tokenizer
from tests.tokenizers.texts import texts

VOCAB_SIZES = {"bpe": 400, "wordpiece": 200, "unigram": 420, "char": 0}


@cache
def trained(kind: str) -> Tokenizer:
    config = load_part("tokenizers", kind).Config(kind=kind, vocab_size=VOCAB_SIZES[kind])
    return config.build().train(texts())


@pytest.fixture(params=sorted(VOCAB_SIZES))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return trained(request.param)
