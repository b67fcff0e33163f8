from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from foundling.core.log import logger
from foundling.corpus import build as corpus_build
from foundling.corpus.folder import open_corpus
from foundling.tokenizers.bpe import Config as BpeConfig
from foundling.tokenizers.train import train_tokenizer
from foundling.train.recipe import Recipe, recipe_from
from tests.tiny import recipe_data, write_texts

torch.set_num_threads(1)  # xdist has a process for each core
settings.register_profile("suite", deadline=None, derandomize=True, database=None)  # a failure comes again
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _quiet_log_again() -> Any:
    """A test that ran a command has set the package's logger up; the next one finds it as it was."""
    before = (logger.level, list(logger.handlers), logger.propagate)
    yield
    logger.level, logger.handlers[:], logger.propagate = before[0], before[1], before[2]


@pytest.fixture(scope="session")
def tiny_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 240 small text files."""
    return write_texts(tmp_path_factory.mktemp("texts") / "texts", 240)


@pytest.fixture(scope="session")
def tiny_corpus(tiny_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus folder of `tiny_texts`, a tenth of it for validation."""
    out = tmp_path_factory.mktemp("corpus") / "corpus"
    corpus_build.build_corpus(
        [str(tiny_texts)], out, corpus_build.Config(valid_fraction=0.1, steps=corpus_build.preset("plain"))
    )
    return out


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer folder: bpe, 400 tokens."""
    out = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    texts = (document.text for document in open_corpus(tiny_corpus).documents("train"))
    train_tokenizer(texts, BpeConfig(vocab_size=400), out, inputs={})
    return out


@pytest.fixture
def tiny_data(tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Plain data of a recipe that trains in under three seconds; `out` is a name in tmp_path, the rest dotted keys."""

    def make(out: str = "run", **changes: Any) -> dict[str, Any]:
        return recipe_data(tiny_corpus, tiny_tokenizer, tmp_path / out, **changes)

    return make


@pytest.fixture
def tiny_recipe(tiny_data: Callable[..., dict[str, Any]]) -> Callable[..., Recipe]:
    """The same as a checked recipe."""
    return lambda out="run", **changes: recipe_from(tiny_data(out, **changes))
