"""What every tokenizer part must do, whoever wrote it: found by name, tried unasked."""

import random
from pathlib import Path

import numpy as np
import pytest

from foundling.core.config import PartConfig, resolved
from foundling.core.registry import load_part, part_names
from foundling.tokenizers.base import Tokenizer, TokenizerConfig, load_tokenizer
from tests.tokenizers.texts import ODD, texts

KINDS = part_names("tokenizers")
SIZE = 450
_RNG = random.Random(0)
TEXTS = texts() + [
    " ".join("".join(_RNG.choices(["ka", "ri", "mon", "tel", "us", "ba"], k=_RNG.randint(2, 4))) for _ in range(30))
    for _ in range(100)
]


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest) -> TokenizerConfig:
    cls = load_part("tokenizers", request.param).Config
    size = 0 if request.param == "char" else SIZE  # characters: as many as the text has
    return cls.model_validate({"kind": request.param, "vocab_size": size})


@pytest.fixture
def tokenizer(config: TokenizerConfig) -> Tokenizer:
    return config.build().train(iter(TEXTS))


def test_helpers_are_no_parts() -> None:
    assert {"bpe", "wordpiece", "unigram", "char"} <= set(KINDS)
    assert not {"train", "report", "base"} & set(KINDS)


def test_config_is_documented_and_survives_its_own_dump(config: TokenizerConfig) -> None:
    assert isinstance(config, PartConfig)
    assert all(field.description for field in type(config).model_fields.values())
    assert type(config).model_validate(resolved(config)) == config


def test_ids_lie_in_the_vocabulary_and_the_kind_is_told(tokenizer: Tokenizer, config: TokenizerConfig) -> None:
    assert tokenizer.kind == config.kind
    for ids in tokenizer.encode_batch([*ODD, *texts(20)]):
        assert ids.dtype == tokenizer.dtype
        assert (ids < tokenizer.vocab_size).all()
        assert not np.isin(ids, [i for i in tokenizer.special_ids if i != tokenizer.unk_id]).any()


def test_special_tokens_come_first_and_are_named(tokenizer: Tokenizer, config: TokenizerConfig) -> None:
    assert [tokenizer.id_of(token) for token in config.reserved] == list(range(len(config.reserved)))
    assert tokenizer.pad_id is not None
    assert tokenizer.eos_id is not None or tokenizer.sep_id is not None


def test_batches_equal_single_texts(tokenizer: Tokenizer) -> None:
    batch = [*ODD, *texts(20)]
    assert [ids.tolist() for ids in tokenizer.encode_batch(batch)] == [tokenizer.encode(text) for text in batch]
    assert tokenizer.encode_batch([]) == []


def test_the_same_texts_give_the_same_file(tokenizer: Tokenizer, config: TokenizerConfig, tmp_path: Path) -> None:
    assert config.build().train(TEXTS).sha256 == tokenizer.sha256
    tokenizer.save(tmp_path / "t")
    assert load_tokenizer(tmp_path / "t").sha256 == tokenizer.sha256
