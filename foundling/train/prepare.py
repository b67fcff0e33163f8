"""From a recipe's corpora to token streams: corpus folders, tokenizer and token stores, each made once."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from foundling.core.errors import UserError
from foundling.core.files import holds, read_manifest
from foundling.core.log import logger
from foundling.core.registry import nearest
from foundling.core.units import human
from foundling.corpus import build as corpus_build
from foundling.corpus import folder as corpus_folder
from foundling.corpus.folder import Corpus, open_corpus
from foundling.data.mixture import Mixture
from foundling.data.rows import Row
from foundling.data.store import Tag, TokenStore, TokenStream, build_store
from foundling.models.hub import find_model_dir
from foundling.tokenizers.base import Tokenizer, TokenizerConfig, load_tokenizer
from foundling.tokenizers.train import train_tokenizer
from foundling.train.corpus_recipe import Corpus as CorpusRecipe
from foundling.train.recipe import Recipe

_LOOKED_AT_DOCUMENTS = 256
"""Documents of each source in which tokens are counted that a given tokenizer does not know."""
_MANY_UNKNOWN, _MOST_UNKNOWN = 0.01, 0.5
"""Shares of them from which on they are told, and are a fault."""


@dataclass(frozen=True)
class Data:
    """What a run trains and is evaluated on."""

    corpora: list[Corpus]
    names: list[str]
    """Of the training streams."""
    mixture: Mixture
    tokenizer: Tokenizer
    tokenizer_dir: Path
    train: list[TokenStream]
    valid: list[TokenStream]
    """One stream for each name that has validation text; never empty."""
    valid_names: list[str]
    inputs: dict[str, str]
    """Keys of the corpora, the tokenizer and the stores, for the run's manifest."""

    @property
    def counts(self) -> dict[str, int]:
        """How much there is, for the run's manifest."""
        splits = {"train": self.train, "valid": self.valid}
        return {f"{name}_tokens": sum(stream.num_tokens for stream in split) for name, split in splits.items()}

    def name_of(self, row: Row) -> str:
        """Where a training row comes from, so that a bad one can be looked up."""
        found = documents_of_row(self.train[row.source], row)
        return f"{self.names[row.source]}, tokens from {row.start}, {found}"


def prepare(recipe: Recipe, folder: Path) -> Data:
    """Builds what is missing under `folder` (corpus-*, tokenizer, tokens-*) and opens everything."""
    corpora = [open_or_build(s.path, folder, f"corpus-{i}", recipe) for i, s in enumerate(recipe.corpus.train)]
    tokenizer, tokenizer_dir = _tokenizer(recipe, folder, corpora)
    recipe.objective.build(tokenizer)  # what it asks of a tokenizer is told before all text is tokenized
    if recipe.tokenizer is None or recipe.tokenizer.train is None:  # one trained here knows what it was asked to
        _must_know(tokenizer, corpora, [s.path for s in recipe.corpus.train])
    tag: Tag = "domain" if recipe.corpus.mix == "domain" else "source"
    stores = [store_of(corpus, tokenizer, folder / f"tokens-{i}", tag) for i, corpus in enumerate(corpora)]
    paths = _names([s.path for s in recipe.corpus.train])
    if recipe.corpus.valid.path is None:
        valid = _streams([store.split("valid") for store in stores], paths, recipe.corpus.mix)
        own_key = {}
    else:
        corpus = open_or_build(recipe.corpus.valid.path, folder, "corpus-valid", recipe)
        store = store_of(corpus, tokenizer, folder / "tokens-valid", tag)
        both = [store.split("train"), store.split("valid")]
        valid = _streams(both, ["valid", "valid"], recipe.corpus.mix)
        own_key = {"valid": corpus.key}
    valid = [(name, stream) for name, stream in valid if stream.num_tokens > 1]
    if not valid:
        raise UserError(
            "there must be validation text",
            got="none: whole documents are held back, and none was",
            do="give corpus.valid a path or a larger fraction; a text that is one document must be cut into several",
        )
    _tell(corpora, tokenizer, stores)
    train = _streams([store.split("train") for store in stores], paths, recipe.corpus.mix)
    if not any(stream.num_tokens for _, stream in train):
        raise UserError(
            "there must be training text",
            got="none: all documents were held back",
            do="give corpus.valid a path or a smaller fraction; a text that is one document must be cut into several",
        )
    names = [name for name, _ in train]
    inputs = {name: corpus.key for name, corpus in zip(paths, corpora, strict=True)}
    return Data(
        corpora=corpora,
        names=names,
        mixture=mixture_of(recipe.corpus, names),
        tokenizer=tokenizer,
        tokenizer_dir=tokenizer_dir,
        train=[stream for _, stream in train],
        valid=[stream for _, stream in valid],
        valid_names=[name for name, _ in valid],
        inputs=inputs | own_key | {"tokenizer": tokenizer.sha256},
    )


def _streams(
    splits: list[TokenStream], paths: list[str], mix: Literal["path", "source", "domain"]
) -> list[tuple[str, TokenStream]]:
    """The streams that a mixture draws from, with their names."""
    if mix == "path":
        return list(zip(paths, splits, strict=True))
    found = [(tag, split.part(tag)) for split in splits for tag in split.sources]
    twice = sorted({name for name, _ in found if sum(name == other for other, _ in found) > 1})
    named = zip(found, (p for p, split in zip(paths, splits, strict=True) for _ in split.sources), strict=True)
    return [(f"{path}/{name}" if name in twice else name, part) for (name, part), path in named]


def mixture_of(corpus: CorpusRecipe, names: list[str]) -> Mixture:
    """The recipe's mixture over streams of these names; UserError for names that are none."""
    given: list[str] = [*(corpus.weights or {}), *(n for change in corpus.changes for n in change.weights)]
    limits = corpus.max_epochs if isinstance(corpus.max_epochs, dict) else {}
    for name in (*given, *limits):
        if name not in names:
            near = nearest(name, names)
            raise UserError(
                f"a mixture's names must be of what is mixed ({', '.join(names)})",
                got=repr(name),
                do=f"did you mean {near!r}?" if near else f"choose corpus.mix (it is {corpus.mix})",
            )
    beside = [s.weight for s in corpus.train if s.weight is not None]
    weights = None if corpus.weights is None else tuple(corpus.weights.get(name, 0.0) for name in names)
    everywhere = None if isinstance(corpus.max_epochs, dict) else corpus.max_epochs
    if corpus.mix == "path":
        limits = {n: s.max_epochs for n, s in zip(names, corpus.train, strict=True) if s.max_epochs} | limits
    return Mixture(
        weights=weights or tuple(beside) or None,
        temperature=corpus.temperature,
        max_epochs=tuple(limits.get(name, everywhere) for name in names),
        changes=tuple((c.at.value, tuple(c.weights.get(name, 0.0) for name in names)) for c in corpus.changes),
        names=tuple(names),
    )


def _tell(corpora: list[Corpus], tokenizer: Tokenizer, stores: list[TokenStore]) -> None:
    """A line for each stage: what there is to learn from."""
    num_documents, num_bytes = (sum(figures) for figures in zip(*map(_size, corpora), strict=True))
    logger.info("corpus: %s documents, %s bytes", f"{num_documents:,}", human(num_bytes))
    tokens = {name: sum(store.split(name).num_tokens for store in stores) for name in ("train", "valid")}
    per_token = num_bytes / max(1, sum(tokens.values()))
    logger.info("tokenizer: %s, %s tokens, %.2f bytes a token", tokenizer.kind, f"{tokenizer.vocab_size:,}", per_token)
    logger.info("tokens: %s to train on, %s held back", human(tokens["train"]), human(tokens["valid"]))


def _must_know(tokenizer: Tokenizer, corpora: list[Corpus], paths: list[str]) -> None:
    """Warns of text that a given tokenizer does not know, before all of it is tokenized; UserError: it knows hardly
    anything of it."""
    for corpus, path in zip(corpora, paths, strict=True):
        texts = [document.text for document in islice(corpus.documents("train"), _LOOKED_AT_DOCUMENTS)]
        found = np.concatenate([*tokenizer.encode_batch(texts), np.empty(0, np.int64)])
        share = float(tokenizer.unknown(found).mean()) if len(found) else 0.0
        if share > _MOST_UNKNOWN:
            raise UserError(
                f"the tokenizer must know the text that it cuts, {path}",
                got=f"{share:.0%} unknown tokens in its first documents",
                do="take the tokenizer that belongs to it, or train one (tokenizer.kind)",
            )
        if share > _MANY_UNKNOWN:
            logger.warning(
                "tokenizer: %.1f %% of the tokens of %s are unknown to it, and what they stand for is not learnt",
                100 * share, path,
            )  # fmt: skip


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


def store_of(corpus: Corpus, tokenizer: Tokenizer, folder: Path, tag: Tag = "source") -> TokenStore:
    """The corpus as token ids, made if it is not there, checked byte by byte if it is."""
    build_store(corpus, tokenizer, folder, tag=tag)
    return TokenStore.open(folder, tokenizer_sha256=tokenizer.sha256, verify="full")


def _tokenizer(recipe: Recipe, folder: Path, corpora: list[Corpus]) -> tuple[Tokenizer, Path]:
    if recipe.tokenizer is None:
        assert recipe.model.start is not None
        start = find_model_dir(recipe.model.start)
        return load_tokenizer(start), start
    wanted = recipe.tokenizer
    path = Path(wanted.path) if wanted.path else folder / "tokenizer"
    if wanted.train is None:
        return load_tokenizer(path), path
    inputs = {f"corpus-{i}": corpus.key for i, corpus in enumerate(corpora)}
    if wanted.path and (path / "tokenizer.json").exists():
        logger.info("tokenizer: %s is there already; it is used as it is", path)
        if holds(path, "tokenizer") and set(read_manifest(path, "tokenizer")["inputs"].values()) != set(
            inputs.values()
        ):
            logger.warning("tokenizer: %s was trained on other text than this run's", path)
        return load_tokenizer(path), path
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


def documents_of_row(stream: TokenStream, row: Row) -> str:
    """Numbers of the documents that a row's text is of, so that a bad row can be looked up: `document 3 to 5`."""
    told = []
    for start, length in row.stretches:
        places = [start, start + max(1, length) - 1]
        first, last = np.maximum(np.searchsorted(stream.document_starts, places, side="right") - 1, 0).tolist()
        told.append(f"{first}" if first == last else f"{first} to {last}")
    return "document " + " and ".join(told)
