"""One answer for each row, from the hidden state of one of its tokens: classification and regression."""

from typing import ClassVar

from foundling.heads import base


class Config(base.HeadConfig):
    kind: str = "sequence"
    """Name of the part."""

    def build(self, width: int) -> "Sequence":
        return Sequence(self, width)


class Sequence(base.Head):
    """Logits [R, C]: the batch's `target_index_M` names one token of each row."""

    whole_row: ClassVar[bool] = True
