"""Cross entropy: minus the log-probability of what is true."""

from foundling.optim.losses.base import ClassLossConfig


class Config(ClassLossConfig):
    kind: str = "cross_entropy"
    """Name of the part."""
