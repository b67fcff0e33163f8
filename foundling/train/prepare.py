"""From a recipe's corpora to token streams: corpus folders, tokenizer and token stores, each made once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundling.core.errors import UserError
from foundling.core.files import holds
from foundling.core.log import logger
from foundling.core.units import human
from foundling.corpus import build as corpus_build
from foundling.corpus import folder as corpus_folder
from foundling.corpus.folder import Corpus, open_corpus
from foundling.data.store import TokenStore, TokenStream, build_store
from foundling.tokenizers.base import Tokenizer, TokenizerConfig, load_tokenizer
from foundling.tokenizers.train import train_tokenizer
from foundling.train.recipe import Recipe


@dataclass(frozen=True)
class Data:
    """What a run trains and is evaluated on."""

    corpora: list[Corpus]
    names: list[str]
    weights: list[float] | None
    tokenizer: Tokenizer
    tokenizer_dir: Path
    train: list[TokenStream]
    valid: list[TokenStream]
    """One stream a corpus that has validation text; never empty."""
    inputs: dict[str, str]
    """Keys of the corpora, the tokenizer and the stores, for the run's manifest."""


def prepare(recipe: Recipe, folder: Path) -> Data:
    """Builds what is missing under `folder` (corpus-*, tokenizer, tokens-*) and opens everything."""
    corpora = [open_or_build(s.path, folder, f"corpus-{i}", recipe) for i, s in enumerate(recipe.corpus.train)]
    tokenizer, tokenizer_dir = _tokenizer(recipe, folder, corpora)
    stores = [store_of(corpus, tokenizer, folder / f"tokens-{i}") for i, corpus in enumerate(corpora)]
    if recipe.corpus.valid.path is None:
        valid = [store.split("valid") for store in stores if store.split("valid").num_tokens > 1]
        own_key = {}
    else:
        corpus = open_or_build(recipe.corpus.valid.path, folder, "corpus-valid", recipe)
        store = store_of(corpus, tokenizer, folder / "tokens-valid")
        valid = [s for s in (store.split("train"), store.split("valid")) if s.num_tokens > 1]
        own_key = {"valid": corpus.key}
    if not valid:
        raise UserError("there must be validation text", got="none", do="give corpus.valid a path or a larger fraction")
    _tell(corpora, tokenizer, stores)
    names = _names([s.path for s in recipe.corpus.train])
    weights = [s.weight for s in recipe.corpus.train if s.weight is not None]
    inputs = {name: corpus.key for name, corpus in zip(names, corpora, strict=True)}
    return Data(
        corpora=corpora,
        names=names,
        weights=weights or None,
        tokenizer=tokenizer,
        tokenizer_dir=tokenizer_dir,
        train=[store.split("train") for store in stores],
        valid=valid,
        inputs=inputs | own_key | {"tokenizer": tokenizer.sha256},
    )


def _tell(corpora: list[Corpus], tokenizer: Tokenizer, stores: list[TokenStore]) -> None:
    """A line for each stage: what there is to learn from."""
    num_documents, num_bytes = (sum(figures) for figures in zip(*map(_size, corpora), strict=True))
    logger.info("corpus: %s documents, %s bytes", f"{num_documents:,}", human(num_bytes))
    tokens = {name: sum(store.split(name).num_tokens for store in stores) for name in ("train", "valid")}
    per_token = num_bytes / max(1, sum(tokens.values()))
    logger.info("tokenizer: %s, %s tokens, %.2f bytes a token", tokenizer.kind, f"{tokenizer.vocab_size:,}", per_token)
    logger.info("tokens: %s to train on, %s held back", human(tokens["train"]), human(tokens["valid"]))


def _size(corpus: Corpus) -> tuple[int, int]:
    """Documents and bytes of a corpus."""
    splits = ("train", "valid")
    return sum(corpus.num_documents(s) for s in splits), sum(corpus.num_bytes(s) for s in splits)


def open_or_build(path: str, folder: Path, name: str, recipe: Recipe) -> Corpus:
    """A corpus folder as it is, or raw text built with the defaults into `folder`/`name`."""
    fraction = recipe.corpus.valid.fraction
    if holds(Path(path), corpus_folder.KIND):
        corpus = open_corpus(Path(path))
        own = corpus.manifest["settings"].get("valid_fraction")
        if "valid" in recipe.corpus.model_fields_set and fraction is not None and own not in (None, fraction):
            logger.warning("%s keeps its own split (valid_fraction %s); corpus.valid.fraction is not used", path, own)
        return corpus
    share = 0.0 if fraction is None else fraction
    config = corpus_build.Config(valid_fraction=share, seed=recipe.seed, steps=corpus_build.preset("plain"))
    return corpus_build.build_corpus([path], folder / name, config, replace=True)


def store_of(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> TokenStore:
    """The corpus as token ids, made if it is not there, checked byte by byte if it is."""
    build_store(corpus, tokenizer, folder)
    return TokenStore.open(folder, tokenizer_sha256=tokenizer.sha256, verify="full")


def _tokenizer(recipe: Recipe, folder: Path, corpora: list[Corpus]) -> tuple[Tokenizer, Path]:
    if recipe.tokenizer is None:
        assert recipe.model.start is not None
        start = Path(recipe.model.start)
        start = start / "model" if (start / "model").is_dir() else start
        return load_tokenizer(start), start
    wanted = recipe.tokenizer
    path = Path(wanted.path) if wanted.path else folder / "tokenizer"
    if wanted.train is None:
        return load_tokenizer(path), path
    if wanted.path and (path / "tokenizer.json").exists():
        logger.info("tokenizer: %s is there already; it is used as it is", path)
        return load_tokenizer(path), path
    inputs = {f"corpus-{i}": corpus.key for i, corpus in enumerate(corpora)}
    assert isinstance(wanted.train, TokenizerConfig)
    own = wanted.path is None  # what lies in the run folder is ours to replace
    return train_tokenizer(_texts(corpora), wanted.train, path, inputs=inputs, replace=own), path


def _texts(corpora: list[Corpus]) -> Iterator[str]:
    for corpus in corpora:
        for document in corpus.documents("train"):
            yield document.text


def _names(paths: list[str]) -> list[str]:
    """A short, distinct name for each source: the last part of its path."""
    names: list[str] = []
    for path in paths:
        name = Path(path).name or path
        names.append(name if name not in names else f"{name}-{len(names)}")
    return names


def documents_of_row(stream: TokenStream, start: int, length: int) -> list[int]:
    """Numbers of the documents that a row touches, so that a bad row can be looked up."""
    starts = stream.document_starts
    first = int(np.searchsorted(starts, start, side="right")) - 1
    last = int(np.searchsorted(starts, start + length - 1, side="right")) - 1
    return list(range(max(0, first), last + 1))
