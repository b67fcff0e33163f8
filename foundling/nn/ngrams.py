"""Embeddings of n-grams, added to a token's own: what the tokens that end here mean together (Huang et al. 2025,
arXiv:2501.16975, section 3.2). They cost a lookup and no product, whatever the table's size. Characters gain most: an
n-gram of them is a piece of a word, in Chinese a word.

There are more n-grams than rows, so a row serves all whose hash it is. The hash is of the token ids alone: it stays
when a vocabulary grows.
"""

# Shapes: N = packed tokens, D = width.

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foundling.core.config import Strict
from foundling.core.units import Count
from foundling.nn.dropout import dropout

_STEP = 6_364_136_223_846_793_005
_MIX = 3_202_034_522_624_059_733
"""Odd multipliers whose products mod 2^64 scatter: Knuth's MMIX, and one of L'Ecuyer 1999 (Mathematics of Computation
68, table 4)."""
_POSITIVE = 2**63 - 1


class Ngrams(Strict):
    orders: Annotated[tuple[Annotated[int, Field(ge=2, le=16)], ...], Field(min_length=1)] = (2, 3)
    """Tokens of an n-gram, the one that is embedded last: [2, 3] adds the embeddings of two and of three tokens."""
    rows: Annotated[Count, Field(ge=1)] = 32_768
    """Rows of the table for each order."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that the embedding of an n-gram is left out as a whole while the model trains, those that stay scaled up:
    for text that is read several times, whose long n-grams are otherwise learnt by heart."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.orders) != sorted(set(self.orders)):
            raise ValueError(f"orders must rise, each once; got {list(self.orders)}")
        return self


class NgramEmbedding(nn.Module):
    """Sums the embeddings of the n-grams that end at each token."""

    def __init__(self, config: Ngrams, width: int) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.rows * len(config.orders), width)
        self.dropout = dropout(config.dropout)

    @property
    def reach(self) -> int:
        """How many tokens before its own a token's embedding reads."""
        return self.config.orders[-1] - 1

    def forward(self, tokens_N: Tensor, positions_N: Tensor) -> Tensor:
        """[N, D] for packed tokens int64 [N] and their positions, which start at 0 in each row: an n-gram that would
        reach over its row's start ends there, and is told from all whole ones."""
        total_ND: Tensor | None = None
        for ids_N in ngram_ids(tokens_N, positions_N, self.config):
            embedded_ND = self.table(ids_N)
            if self.training and self.config.dropout:
                embedded_ND = embedded_ND * self.dropout(embedded_ND.new_ones(len(ids_N), 1))
            total_ND = embedded_ND if total_ND is None else total_ND + embedded_ND
        assert total_ND is not None
        return total_ND


def ngram_tables(model: nn.Module) -> list[str]:
    """Names of a model's parameters that are tables of n-grams."""
    return [f"{name}.table.weight" for name, module in model.named_modules() if isinstance(module, NgramEmbedding)]


def ngram_ids(tokens_N: Tensor, positions_N: Tensor, config: Ngrams) -> list[Tensor]:
    """For each order the row of the table that each token reads, int64 [N]."""
    found: list[Tensor] = []
    key_N = tokens_N
    for back in range(1, config.orders[-1]):
        before_N = torch.where(positions_N >= back, tokens_N.roll(back) + 1, 0)
        key_N = key_N * _STEP + before_N
        if back + 1 in config.orders:
            mixed_N = (key_N ^ (key_N >> 31)) * _MIX
            scattered_N = (mixed_N ^ (mixed_N >> 29)) & _POSITIVE
            found.append(scattered_N % config.rows + len(found) * config.rows)
    return found
