"""One answer for each row about two of its tokens: the relation of two entities, from their markers' hidden states
(Baldini Soares et al. 2019, arXiv:1906.03158, section 3.3, "entity start")."""

from typing import ClassVar

from torch import Tensor

from foundling.data.batch import Batch
from foundling.heads import base


class Config(base.HeadConfig):
    kind: str = "pair"
    """Name of the part."""

    def build(self, width: int) -> "Pair":
        return Pair(self, width)


class Pair(base.Head):
    """Logits [R, C]: the batch's `target_index_M` names two tokens of each row, one after the other."""

    whole_row: ClassVar[bool] = True

    def __init__(self, config: base.HeadConfig, width: int) -> None:
        super().__init__(config, width, 2 * width)

    def forward(self, hidden_WD: Tensor, batch: Batch) -> Tensor:
        return super().forward(hidden_WD.unflatten(0, (-1, 2)).flatten(1), batch)
