"""The weights that a run begins with: initial values, those of a given model, or word vectors for the embedding."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.models.base import family_of
from foundling.models.hub import find_model_dir, load_model
from foundling.models.vectors import Embeddings, embed
from foundling.models.vocabulary import extend_vocabulary
from foundling.nn.init import place_
from foundling.tokenizers.base import load_tokenizer
from foundling.train.prepare import Data
from foundling.train.recipe import Recipe

_MOST_COUNTED_TOKENS = 5_000_000
"""Training tokens that are counted, for how often each comes."""
LOGIT_BIAS = "head.bias"
"""What is added to the logits, of the families that have it: bert, xlnet."""


def start_weights(recipe: Recipe, data: Data) -> Any:
    """The model that the run starts from, on CPU in fp32, or None."""
    if recipe.model.start is None:
        return None
    start = find_model_dir(recipe.model.start)
    model: Any = load_model(start)
    if recipe.tokenizer is not None and recipe.tokenizer.extend:
        generator = torch.Generator().manual_seed(recipe.seed)
        model = extend_vocabulary(model, load_tokenizer(start), data.tokenizer, generator)
    return model


def with_dropout(config: Any, rate: float) -> Any:
    """The config of a family, or of a body with a task's head, with another `dropout`; with 0 no n-gram is left out
    either."""
    fields = type(config).model_fields
    if "body" in fields:
        return config.model_copy(update={"body": with_dropout(config.body, rate)})
    if "dropout" in fields:
        config = config.model_copy(update={"dropout": rate})
        if not rate and getattr(config, "ngrams", None) is not None:
            return config.model_copy(update={"ngrams": config.ngrams.model_copy(update={"dropout": 0.0})})
        return config
    if rate:
        raise UserError(f"train.dropout is not for a {family_of(config)} model, which has no layers to drop from")
    return config


def fill(model: Any, weights: Mapping[str, Tensor] | None, seed: int) -> None:
    """Initial values of the seed, and over them the given weights, by name."""
    if weights is None:
        model.initialize(torch.Generator().manual_seed(seed))
        return
    wanted = dict(model.named_parameters())
    if not wanted.keys() & weights.keys():
        raise UserError(
            "what a run starts from must hold weights of the model that is trained",
            got=f"none of its names: {', '.join(sorted(weights)[:3])}, ...",
        )
    new = [name for name in wanted if name not in weights]
    if new:
        model.initialize(torch.Generator().manual_seed(seed))
    for name in wanted.keys() & weights.keys():
        place_(wanted[name], weights[name].detach())
    logger.info("weights: from the given model")
    if new:
        logger.info("weights: new, with initial values, for the given model has none: %s", ", ".join(sorted(new)))
    if left := sorted(weights.keys() - wanted.keys()):
        logger.info("weights: left out, for nothing here reads such a head: %s", ", ".join(left))


def fill_logit_bias(model: Any, data: Data, shares: Sequence[float]) -> None:
    """The log of each token's share of what is trained on first into the bias of the logits, where the model has one
    that begins at its initial value. Every process calls it. shares: of the samples, for each source.

    It is the answer of who knows nothing else. A model that has to learn it first does so faster by turning all hidden
    states, and with them the tied embedding, one way than by its bias; a post-norm encoder hardly comes back from there
    and stays at the loss of the frequencies (docs/log.md).
    """
    if (parameter := dict(model.named_parameters()).get(LOGIT_BIAS)) is not None:
        counts_V = np.full(parameter.shape[0], 0.5)  # of what never comes, so that its log is finite
        counted = [np.bincount(ids, minlength=data.tokenizer.vocab_size) for ids in _first_tokens(data)]
        num = sum(counts.sum() for counts in counted)
        for counts, share in zip(counted, shares, strict=True):
            counts_V[: data.tokenizer.vocab_size] += counts * (share * num / max(1, counts.sum()))
        place_(parameter, torch.from_numpy(np.log(counts_V / counts_V.sum())).float())


def fill_embedding(model: Any, wanted: Embeddings, data: Data, seed: int) -> None:
    """Word vectors into the embedding of a model that has its initial values. Every process calls it."""
    parameter: Tensor = model.embedding.weight
    whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
    rows_VD = embed(
        wanted, data.tokenizer, whole.detach().float().cpu(), torch.Generator().manual_seed(seed),
        lambda: token_counts(data),
    )  # fmt: skip
    place_(parameter, rows_VD)


def token_counts(data: Data) -> np.ndarray:
    """How often each token comes in the training text, int64 [vocabulary]; in its first tokens where it is long."""
    counts_V = np.zeros(data.tokenizer.vocab_size, dtype=np.int64)
    for ids in _first_tokens(data):
        counts_V += np.bincount(ids, minlength=len(counts_V))
    return counts_V


def _first_tokens(data: Data) -> Iterator[np.ndarray]:
    """The first ids of each source, all of them where there are few."""
    each = max(1, _MOST_COUNTED_TOKENS // len(data.train))
    for stream in data.train:
        yield stream.read(0, min(each, stream.num_tokens))
