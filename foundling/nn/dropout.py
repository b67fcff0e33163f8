"""Dropout (Srivastava et al. 2014, JMLR 15, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting").

It stands on hidden states alone. Attention weights are not dropped as in the original models: none of the kernels
holds them whole, and torch's fused attention falls to one that does where it is asked to drop some.
"""

from torch import nn


def dropout(rate: float) -> nn.Module:
    """A layer that zeroes each value with this chance while its model trains, and scales up those that stay.

    Without a chance it is a layer that does nothing, so a model that drops nothing pays for nothing.
    """
    return nn.Dropout(rate) if rate else nn.Identity()


def draws(module: nn.Module) -> bool:
    """Whether anything in a module draws random numbers while it trains."""
    return any(isinstance(part, nn.Dropout) for part in module.modules())
