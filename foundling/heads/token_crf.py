"""Scores of tags at chosen tokens, and of tags beside one another: a linear-chain conditional random field
(Lafferty et al. 2001; on a pretrained encoder Souza et al. 2019, arXiv:1909.10649, section 3)."""

# Shapes: M = places that the head reads, C = classes (tags).

from typing import ClassVar

import torch
from torch import nn

from foundling.heads import base
from foundling.nn.init import fill_, place_
from foundling.optim.losses.crf import Transitions


class Config(base.HeadConfig):
    kind: str = "token_crf"
    """Name of the part."""

    def build(self, width: int) -> "TokenCrf":
        return TokenCrf(self, width)


class TokenCrf(base.Head):
    """Logits [M, C] at the batch's `target_index_M`; `chain` has the scores of their order."""

    lr_factors: ClassVar[dict[str, float]] = {"transitions": 100.0, "starts": 100.0, "ends": 100.0}

    def __init__(self, config: base.HeadConfig, width: int) -> None:
        super().__init__(config, width)
        self.transitions = nn.Parameter(torch.empty(config.num_classes, config.num_classes))
        self.starts = nn.Parameter(torch.empty(config.num_classes))
        self.ends = nn.Parameter(torch.empty(config.num_classes))

    def chain(self) -> Transitions:
        """Scores of the order of tags, nats, fp32."""
        return Transitions(self.transitions.float(), self.starts.float(), self.ends.float())

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """The layers as of any head, and no order of tags preferred."""
        for name, parameter in self.named_parameters():
            if name in self.lr_factors:
                place_(parameter, torch.zeros(parameter.shape))
            else:
                fill_(name, parameter, self.config.init_std, generator)
