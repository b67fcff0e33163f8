"""An answer for each chosen token: the tags of words."""

from foundling.heads import base


class Config(base.HeadConfig):
    kind: str = "token"
    """Name of the part."""

    def build(self, width: int) -> "Token":
        return Token(self, width)


class Token(base.Head):
    """Logits [M, C] at the batch's `target_index_M`."""
