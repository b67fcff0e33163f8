"""How the next token is chosen from logits: a penalty, then a temperature, then filters, then one draw.

Order and mathematics are those of transformers' logits processors, so the same settings mean the same everywhere.
"""

# Shapes: B = samples, S = tokens read so far, V = vocabulary.

from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor

from foundling.core.config import Strict

_NOTHING = -float("inf")


class Sampling(Strict):
    """How tokens are drawn. Filters apply in the order of the fields; None leaves a filter out."""

    repetition_penalty: float = 1.0
    """Logits of tokens that were read already are divided by it where positive, multiplied where negative (Keskar et
    al. 2019, arXiv:1909.05858, section 4.1). 1: nothing; above 1: less repetition."""
    temperature: float = 1.0
    """Logits are divided by it. 0: always the most likely token."""
    top_k: int | None = None
    """Only the k most likely tokens, at least 1 (Fan et al. 2018, arXiv:1805.04833)."""
    top_p: float | None = None
    """Only the fewest most likely tokens whose probabilities reach p, in (0, 1] (Holtzman et al. 2019,
    arXiv:1904.09751)."""
    min_p: float | None = None
    """Only tokens at least p times as likely as the most likely, in [0, 1] (Nguyen et al. 2024, arXiv:2407.01082)."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 1e-3 <= self.repetition_penalty <= 1e3:
            raise ValueError(f"repetition_penalty must lie in 0.001 ... 1000; got {self.repetition_penalty}")
        if self.temperature != 0 and not 1e-6 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0, or 0.000001 or above; got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1; got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1]; got {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie in [0, 1]; got {self.min_p}")
        return self


def penalize_repetition(logits_BV: Tensor, read_BS: Tensor, penalty: float) -> Tensor:
    """Logits with those of the tokens in read_BS (int64 [B, S]) penalized once each."""
    chosen_BS = logits_BV.gather(1, read_BS)
    return logits_BV.scatter(1, read_BS, torch.where(chosen_BS < 0, chosen_BS * penalty, chosen_BS / penalty))


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Logits below the k-th largest become -inf; equals of the k-th stay."""
    least_B1 = logits_BV.topk(min(k, logits_BV.shape[-1])).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, _NOTHING)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """The least likely tokens whose probabilities sum to at most 1 - p become -inf; the most likely always stays."""
    sorted_BV, order_BV = logits_BV.sort(descending=False)
    drop_BV = sorted_BV.softmax(-1).cumsum(-1) <= 1 - p
    drop_BV[:, -1] = False
    return logits_BV.masked_fill(torch.zeros_like(drop_BV).scatter(1, order_BV, drop_BV), _NOTHING)


def keep_min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Tokens less likely than p times the most likely become -inf; the most likely always stays."""
    probabilities_BV = logits_BV.softmax(-1)
    top_B1, best_B1 = probabilities_BV.max(-1, keepdim=True)
    drop_BV = (probabilities_BV < p * top_B1).scatter(1, best_B1, False)
    return logits_BV.masked_fill(drop_BV, _NOTHING)


def filtered(logits_BV: Tensor, read_BS: Tensor, sampling: Sampling) -> Tensor:
    """Logits as they are drawn from, fp32 [B, V]; with temperature 0 only the penalty is applied.

    logits_BV: any floating type. read_BS: int64 [B, S], the tokens of each sample so far, the prompt's included.
    """
    logits_BV = logits_BV.float()
    if sampling.repetition_penalty != 1:
        logits_BV = penalize_repetition(logits_BV, read_BS, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits_BV
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        logits_BV = keep_top_k(logits_BV, sampling.top_k)
    if sampling.top_p is not None and sampling.top_p < 1:
        logits_BV = keep_top_p(logits_BV, sampling.top_p)
    if sampling.min_p is not None:
        logits_BV = keep_min_p(logits_BV, sampling.min_p)
    return logits_BV


def draw(logits_BV: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token of each sample, int64 [B], from filtered logits; the most likely at temperature 0."""
    if sampling.temperature == 0:
        return logits_BV.argmax(-1)
    return torch.multinomial(logits_BV.softmax(-1), 1, generator=generator)[:, 0]
