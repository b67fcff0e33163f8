"""Word vectors: two tables, one for words as they are read and one for words as they are predicted (Mikolov et al.
2013, arXiv:1310.4546). Nothing of a text's order reaches the model but which words are near each other.
"""

# Shapes: N = packed tokens, M = targets, D = width, V = vocabulary.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from foundling.core.config import Strict
from foundling.core.files import write_text
from foundling.core.units import Size
from foundling.data.batch import Batch
from foundling.models.base import Hidden, Style
from foundling.nn.attention import Kernel
from foundling.nn.init import fill_
from foundling.tokenizers.base import Tokenizer

_PRODUCTS_A_TOKEN = 36
"""Dot products for a token of text with a window of 5 and 5 noise words: 6 pairs, each with 6 words."""


class Config(Strict):
    objectives: ClassVar[tuple[str, ...]] = ("word2vec",)
    """What the family can be trained by, its own first."""
    precision: ClassVar[str] = "fp32"
    """What `train.precision: auto` means here: sums of thousands of small gradients are no work for bf16."""

    vocab_size: Size
    """Rows of both tables: token ids below it."""
    width: Size
    """Numbers of a word's vector."""
    max_positions: Size = 1024
    """Longest row, tokens. No weight is bound to it."""
    init_std: Annotated[float, Field(gt=0)] | None = None
    """Spread of both tables at the start; None: 0.5 / width. (The original draws the first from +-0.5 / width and
    leaves the second at zero.)"""

    @property
    def layers(self) -> int:
        return 0

    @property
    def heads(self) -> int:
        return 1

    @property
    def groups(self) -> int:
        return 1

    @property
    def key_width(self) -> int:
        return self.width

    def build(self) -> "Word2Vec":
        return Word2Vec(self)


class Word2Vec(nn.Module):
    """Call it with a `Batch` for what its targets are predicted from: a word, or the mean of the words around it."""

    parallel_plan: ClassVar[dict[str, Style]] = {}
    lr_factors: ClassVar[dict[str, float]] = {}

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.context = nn.Embedding(config.vocab_size, config.width)

    @property
    def matrices(self) -> Mapping[str, int | None]:
        return {}

    def blocks(self) -> Sequence[nn.Module]:
        return []

    def set_kernel(self, kernel: Kernel, *, compiled: bool = False) -> None:
        """There is no attention."""

    def forward(self, batch: Batch) -> Hidden:
        if batch.context_index_C is not None:
            words_C = batch.tokens_N[batch.context_index_C]
            hidden_MD = F.embedding_bag(words_C, self.embedding.weight, batch.context_starts_M, mode="mean")
        else:
            read_M = batch.tokens_N if batch.target_index_M is None else batch.tokens_N[batch.target_index_M]
            hidden_MD = self.embedding(read_M)
        return Hidden(hidden_MD, self.context.weight)

    def encode(self, batch: Batch) -> Tensor:
        """The vector of each token, [N, D]."""
        vectors_ND: Tensor = self.embedding(batch.tokens_N)
        return vectors_ND

    def initialize(self, generator: torch.Generator | None = None) -> None:
        std = 0.5 / self.config.width if self.config.init_std is None else self.config.init_std
        for name, parameter in self.named_parameters():
            fill_(name, parameter, std, generator)

    def flops_per_token(self, row_length: int) -> float:
        """Of the dot products with the original's window and noise; no matrix is multiplied."""
        return 6.0 * _PRODUCTS_A_TOKEN * self.config.width


def write_vectors(path: Path, vectors_VD: Tensor, tokenizer: Tokenizer) -> None:
    """Vectors [V, D] as a word2vec text file: `words dimensions`, then a token as the vocabulary spells it and its
    numbers a line. Special tokens, and tokens with white space within, are left out."""
    special = set(tokenizer.special_ids)
    names = [(i, tokenizer.token_of(i)) for i in range(min(tokenizer.vocab_size, len(vectors_VD))) if i not in special]
    kept = [(i, name) for i, name in names if name and not any(character.isspace() for character in name)]
    values = vectors_VD.detach().float().cpu().numpy().astype(np.float64)
    lines = (f"{name} {' '.join(f'{x:.6g}' for x in values[i])}\n" for i, name in kept)
    write_text(path, f"{len(kept)} {vectors_VD.shape[1]}\n" + "".join(lines))
