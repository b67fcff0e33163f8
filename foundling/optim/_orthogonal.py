"""The orthogonal matrix nearest to a matrix, by products alone, of many matrices at once."""

# Shapes: N = matrices, A x B = one of them, A <= B after a transpose.

from collections.abc import Sequence

import torch
from torch import Tensor

Steps = Sequence[tuple[float, float, float]]
"""a, b and c of each step x -> a x + b (x x') x + c (x x')^2 x."""

_POLAR_EXPRESS: Steps = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
"""Each step the best polynomial of its degree for what the ones before leave of singular values from 1e-3 to 1 (Amsel
et al. 2025, arXiv:2505.16932, algorithm 1)."""
_LIMIT = (1.875, -1.25, 0.375)
"""What these tend to: Newton-Schulz's own polynomial."""
_MARGIN = 1.01
"""Rounding may leave a singular value above what the next step is made for: all but the last step expect values larger
by so much (ibid., section 3.4)."""


def polar_express(num_steps: int) -> Steps:
    """Steps that each fit what the ones before leave."""
    steps = [*_POLAR_EXPRESS, *[_LIMIT] * num_steps][:num_steps]
    return [(a / _MARGIN, b / _MARGIN**3, c / _MARGIN**5) for a, b, c in steps[:-1]] + steps[-1:]


def quintic(num_steps: int) -> Steps:
    """One polynomial for all steps, steep at 0: after five, singular values lie between 0.68 and 1.13 (Jordan et al.
    2024, https://kellerjordan.github.io/posts/muon/)."""
    return [(3.4445, -4.7750, 2.0315)] * num_steps


def orthogonalized(x_NAB: Tensor, steps: Steps) -> Tensor:
    """U V' of each matrix U S V', approximately; a matrix of zeros stays one. Computed in the matrices' own type."""
    if x_NAB.shape[1] > x_NAB.shape[2]:
        return orthogonalized(x_NAB.mT, steps).mT
    # the Frobenius norm is at least the largest singular value
    norm_N = torch.linalg.vector_norm(x_NAB, dim=(1, 2), keepdim=True, dtype=torch.float32)
    x_NAB = x_NAB / (_MARGIN * norm_N).clamp(min=1e-7).to(x_NAB.dtype)
    for a, b, c in steps:
        gram_NAA = x_NAB @ x_NAB.mT
        polynomial_NAA = torch.baddbmm(gram_NAA, gram_NAA, gram_NAA, beta=b, alpha=c)
        x_NAB = torch.baddbmm(x_NAB, polynomial_NAA, x_NAB, beta=a)
    return x_NAB
