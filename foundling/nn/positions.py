"""Positions: rotary (Su et al. 2021, arXiv:2104.09864) in the half-split form of GPT-NeoX and Llama, and sinusoids."""

# Shapes: N = packed tokens, H = heads, K = width of a head, D = width of the model.

import torch
from torch import Tensor


def rotary_tables(positions_N: Tensor, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, fp32 [N, K / 2], for the positions of N tokens. `theta` is the base of the frequencies."""
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32, device=positions_N.device) / head_width
    angles = positions_N[:, None].float() * theta ** -exponents[None, :]
    return angles.cos(), angles.sin()


def rotate(x_NHK: Tensor, cos_NK: Tensor, sin_NK: Tensor) -> Tensor:
    """Turns each head's pairs (i, i + K/2) by the token's angles. In and out [N, H, K], computed in fp32."""
    first, second = x_NHK.float().chunk(2, dim=-1)
    cos, sin = cos_NK[:, None, :], sin_NK[:, None, :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_NHK.dtype)


def sinusoids(positions_N: Tensor, width: int) -> Tensor:
    """Fixed positions, fp32 [N, D]: sin and cos by turns, wavelengths from 2 pi to 10000 x 2 pi (Vaswani et al. 2017,
    arXiv:1706.03762, section 3.5). `width` D is even."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions_N.device) / width
    angles = positions_N[:, None].float() * 10_000.0 ** -exponents[None, :]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
