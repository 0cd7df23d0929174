r"""A smooth function of a few variables at many places, from its values at a few."""

from __future__ import annotations

__all__ = ["tabulated"]

import math
import torch

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor

STEP = 0.5
"""Ranges are whole numbers of these, so that a table hardly ever changes during a fit."""


def tabulated(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "n k"]
) -> Float[Tensor, " n"]:
    r"""Returns a smooth function of :math:`k` variables of order one, such as logarithms.

    Where there are many places, it is interpolated by Chebyshev polynomials over the box of the
    places, and differentiable in them.

    References:
        | Approximation Theory and Approximation Practice (Trefethen, 2019)
        | https://doi.org/10.1137/1.9781611975949

    Arguments:
        function: The function, of an array of places.
        x: The places.

    Example:
        >>> x = torch.linspace(0, 2, 1000).double()[:, None]
        >>> (tabulated(lambda x: x[:, 0].sin(), x) - x[:, 0].sin()).abs().max().item() < 1e-6
        True
    """
    low = (x.detach().amin(dim=0) / STEP).floor() * STEP
    high = torch.maximum((x.detach().amax(dim=0) / STEP).ceil() * STEP, low + STEP)
    counts = [5 + math.ceil(1.5 * w) for w in (high - low).tolist()]
    if len(x) <= math.prod(counts):
        return function(x)
    knots = [_knots(m) for m in counts]
    mesh = torch.cartesian_prod(*knots).reshape(-1, len(knots))
    with torch.no_grad():
        table = function((low + high) / 2 + mesh * (high - low) / 2).reshape(counts[0], -1)
    u = (2 * x - low - high) / (high - low)
    value = _cardinal(u[:, 0], knots[0]) @ table
    for j in range(1, len(knots)):
        value = value.unflatten(1, (counts[j], -1))
        value = (_cardinal(u[:, j], knots[j])[:, :, None] * value).sum(dim=1)
    return value[:, 0]


def _knots(count: int) -> Float[Tensor, " m"]:
    angle = math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return angle.cos()


def _polynomials(u: Float[Tensor, " n"], count: int) -> Float[Tensor, "n m"]:
    found = [torch.ones_like(u), u]
    for _ in range(count - 2):
        found.append(2 * u * found[-1] - found[-2])
    return torch.stack(found[:count], dim=-1)


def _cardinal(u: Float[Tensor, " n"], knots: Float[Tensor, " m"]) -> Float[Tensor, "n m"]:
    r"""Returns the polynomials that are one at a knot and zero at the others."""
    count = len(knots)
    return _polynomials(u, count) @ torch.linalg.inv(_polynomials(knots, count))
