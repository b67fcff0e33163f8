"""More tokens for a trained model: rows for what its tokenizer did not hold, which begin as what it held instead."""

# Shapes: V = vocabulary, D = width.

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foundling.core.errors import UserError
from foundling.core.log import logger
from foundling.nn.init import rows_like
from foundling.tokenizers.base import Tokenizer

_METASPACE = "▁"
"""How unigram vocabularies spell a space."""


def extend_vocabulary(model: Any, old: Tokenizer, new: Tokenizer, generator: torch.Generator) -> Any:
    """A model of the same weights for a tokenizer with more tokens; told in a line.

    Old rows stay as they are. Of every parameter with a row for each token (embedding, head, bias), a new token's row
    is the mean of the rows of the old tokens that its text was read as; a special token's, and that of a text which
    was unknown, is drawn with the mean and covariance of the old rows (Hewitt 2021). UserError: the new tokenizer does
    not hold the old tokens under their ids, or the model has no rows for all old ones.
    """
    must_have_rows(model.config, old)
    _must_extend(old, new)
    first, vocab_size = old.vocab_size, max(new.vocab_size, model.config.vocab_size)
    pieces = [old_pieces(token_id, old, new) for token_id in range(first, new.vocab_size)]
    with torch.device("meta"):
        wider: Any = model.config.model_copy(update={"vocab_size": vocab_size}).build()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    of_tokens = _token_parameters(model)
    state = {}
    for name, parameter in wider.named_parameters():
        known = weights[name]
        if name in of_tokens:
            known = _extended(known, parameter.shape, first, pieces, generator)
        state[name] = known.clone()
    wider.load_state_dict(state, assign=True)
    num_read = sum(bool(ids) for ids in pieces)
    logger.info(
        "vocabulary: %s tokens more, %s in all: %s begin as the mean of their old pieces, %s like the old ones",
        f"{len(pieces):,}", f"{new.vocab_size:,}", f"{num_read:,}", f"{len(pieces) - num_read:,}",
    )  # fmt: skip
    return wider


def must_have_rows(config: Any, tokenizer: Tokenizer) -> None:
    """UserError: a tokenizer with more tokens than its model has rows."""
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            "the tokenizer must not have more tokens than the model",
            got=f"{tokenizer.vocab_size} against {config.vocab_size}",
            do="give a model folder with the tokenizer that the model was trained with",
        )


def _must_extend(old: Tokenizer, new: Tokenizer) -> None:
    if new.vocab_size < old.vocab_size:
        raise UserError(
            f"an extended tokenizer must hold the {old.vocab_size} old tokens", got=f"{new.vocab_size} tokens"
        )
    for token_id in range(old.vocab_size):
        if old.token_of(token_id) != new.token_of(token_id):
            raise UserError(
                "an extended tokenizer must hold the old tokens under their ids",
                got=f"{new.token_of(token_id)!r} for id {token_id}, which was {old.token_of(token_id)!r}",
                do="extend the model's own tokenizer",
            )


def _token_parameters(model: Any) -> set[str]:
    """Names of the parameters whose first dimension follows the vocabulary."""
    with torch.device("meta"):
        other = model.config.model_copy(update={"vocab_size": model.config.vocab_size + 1}).build()
    shapes = {name: parameter.shape for name, parameter in other.named_parameters()}
    return {name for name, parameter in model.named_parameters() if parameter.shape != shapes[name]}


def old_pieces(token_id: int, old: Tokenizer, new: Tokenizer) -> list[int]:
    """The ids of the old tokens that a new token's text was read as; none for special tokens and unknown text."""
    name = new.token_of(token_id)
    if name is None or token_id in new.special_ids:
        return []
    if name.startswith(_METASPACE):
        text = " " + name.removeprefix(_METASPACE)
    elif name.startswith("##"):
        text = name.removeprefix("##")
    else:
        text = new.decode([token_id], skip_special=False) or name
    ids = old.encode(text)
    return [] if old.unk_id in ids else ids


def _extended(
    known: Tensor, shape: torch.Size, first: int, pieces: Sequence[list[int]], generator: torch.Generator
) -> Tensor:
    """A parameter with a row (or number) for each token, grown to `shape`; new tokens begin at `first`."""
    flat = known.reshape(known.shape[0], -1)
    grown = flat.new_empty(shape[0], flat.shape[1])
    grown[: known.shape[0]] = flat
    drawn = rows_like(flat[:first], len(pieces), generator).to(flat.dtype) if pieces else flat[:0]
    if known.ndim == 1:
        drawn = flat[:first].mean(0).expand(len(pieces), 1)
    for offset, ids in enumerate(pieces):
        grown[first + offset] = flat[ids].mean(0) if ids else drawn[offset]
    return grown.reshape(shape)
