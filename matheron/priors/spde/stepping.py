r"""What steps of time do to the variance of an equation of evolution."""

from __future__ import annotations

__all__ = ["stepping_ratio"]

import numpy as np
import torch

from jaxtyping import Float
from scipy.special import roots_jacobi, roots_legendre
from torch import Tensor

RADII = 24
ANGLES = 8


def stepping_ratio(
    beta: Float[Tensor, " n"],
    drift: Float[Tensor, " n"],
    dimension: int,
    alpha: int,
    color: int,
) -> Float[Tensor, " n"]:
    r"""Returns the variance with steps of time, over that of the equation without advection.

    A wave of rate :math:`r + i w` has the variance :math:`1 / (2 r + \delta r^2)` under steps
    :math:`\delta` that are implicit for :math:`r` and centred for :math:`w`, and
    :math:`1 / (2 r)` without steps. With :math:`A = 1 + k^\top H k / \kappa^2`,
    :math:`r + i w = \kappa^\alpha (A + i g)^{\alpha/2}` and :math:`e = g^2 / A^2`,

    .. math:: r = \begin{cases} \kappa^2 A & \alpha = 2 \\
        \kappa^4 A^2 (1 - e) & \alpha = 4 \end{cases}

    and the ratio :math:`\kappa^\alpha A^{\alpha/2} / (r + \delta r^2 / 2)` is averaged over the
    waves, by their share of the variance.

    Arguments:
        beta: The step :math:`\beta = \kappa^\alpha \delta`, in units of time of the equation;
            zero for a scheme that keeps the variance.
        drift: The squared speed :math:`m^\top H^{-1} m / \kappa^2`.
        dimension: The number of axes of space.
        alpha: The power of the operator.
        color: The color of the noise.

    Example:
        >>> half = torch.tensor([0.5], dtype=torch.float64)
        >>> stepping_ratio(half, torch.zeros_like(half), 2, 2, 1)  # 1 - log(5) / 4
        tensor([0.5976], dtype=torch.float64)
    """
    u, weight = _radii(dimension, alpha // 2 + color - dimension / 2)
    step = beta[:, None] / 2 * u ** (-alpha / 2)
    if alpha == 2:
        return (weight / (1 + step)).sum(dim=-1)
    total = torch.zeros_like(step)
    for square, share in _angles(dimension):
        rest = 1 - drift[:, None] * u * (1 - u) * square
        total = total + share / (rest * (1 + step * rest))
    return (total * weight).sum(dim=-1)


def _radii(dimension: int, nu: float) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    r"""Returns :math:`1 / A` at the nodes of a rule, and the share of variance of each."""
    x, w = roots_jacobi(RADII, dimension / 2 - 1, nu - 1)
    return torch.as_tensor((1 + x) / 2), torch.as_tensor(w / w.sum())


def _angles(dimension: int) -> list[tuple[float, float]]:
    r"""Returns squared cosines with the velocity, and the share of each."""
    if dimension == 1:
        return [(1.0, 1.0)]
    if dimension == 2:
        theta = (np.arange(ANGLES) + 0.5) * np.pi / (2 * ANGLES)
        return [(float(c), 1 / ANGLES) for c in np.cos(theta) ** 2]
    x, w = roots_legendre(ANGLES)
    squares = ((1 + x) / 2) ** 2
    return [(float(c), float(v)) for c, v in zip(squares, w / 2, strict=True)]
