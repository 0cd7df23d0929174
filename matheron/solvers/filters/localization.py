r"""Localisation: far data are damped, since the sample covariance with them is mostly noise."""

from __future__ import annotations

__all__ = ["Localization", "gaspari_cohn", "local_weights"]

import math
import torch

from collections.abc import Callable, Sequence
from jaxtyping import Float
from torch import Tensor

from .transforms import Departures

HALF_SUPPORT = math.sqrt(10 / 3)
"""The half support of the taper whose curvature at zero is that of a unit Gaussian."""


def gaspari_cohn(r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Returns the compact taper of Gaspari & Cohn: like a Gaussian, and zero from two on.

    It is a piecewise rational function of fifth order, positive definite in three dimensions.

    References:
        | Construction of correlation functions in two and three dimensions (Gaspari & Cohn, 1999)
        | https://doi.org/10.1002/qj.49712555417

    Arguments:
        r: Distances, in units of half the support.

    Example:
        >>> gaspari_cohn(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)).tolist()
        [1.0, 0.2083333..., 0.0]
    """
    near = 1 + r**2 * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))
    far = 4 + r * (-5 + r * (5 / 3 + r * (5 / 8 + r * (-1 / 2 + r / 12))))
    far = far - 2 / (3 * r.clamp(min=1.0))
    return torch.where(r < 1, near, torch.where(r < 2, far.clamp(min=0.0), 0.0))


class Localization:
    r"""How the weight of a datum falls with its distance to a node.

    Arguments:
        radius: The standard deviation of the Gaussian that the taper follows near zero, in the
            units of the axes, or in metres on the sphere; the weight is zero from
            :math:`2 \sqrt{10 / 3} = 3.65` times that distance on. Infinite for no localisation.
        period: The period of each axis of the plane, or one for all; ``None`` for none.

    Raises:
        ValueError: If ``radius`` or a period is not positive.

    Example:
        >>> places = torch.arange(40.0, dtype=torch.float64)[:, None]
        >>> circle = Localization(4.0, period=40.0)
        >>> circle.coefficients(places[:1], places[[0, 4, 36, 20]]).tolist()
        [[1.0, 0.635..., 0.635..., 0.0]]
    """

    def __init__(self, radius: float, period: float | Sequence[float] | None = None) -> None:
        periods = [] if period is None else torch.as_tensor(period).reshape(-1).tolist()
        for name, values in {"radius": [radius], "period": periods}.items():
            if not all(v > 0 for v in values):
                msg = (
                    f"Localization({name}=...): expected a positive number, got {min(values)}. "
                    "Give a distance in the units of the axes."
                )
                raise ValueError(msg)
        self.radius, self.period = float(radius), period

    def distance(self, a: Float[Tensor, "p d"], b: Float[Tensor, "q d"]) -> Float[Tensor, "p q"]:
        r"""Returns the distances between two sets of places, around the period."""
        period = torch.as_tensor(self.period or math.inf, dtype=torch.float64)
        square = torch.zeros(len(a), len(b), dtype=torch.float64)
        for p, q, length in zip(a.unbind(1), b.unbind(1), period.expand(a.shape[1]), strict=True):
            gap = p[:, None] - q
            if length.isfinite():
                gap = torch.minimum(gap % length, (-gap) % length)
            square = torch.addcmul(square, gap, gap)
        return square.sqrt()

    def coefficients(
        self, a: Float[Tensor, "p d"], b: Float[Tensor, "q d"]
    ) -> Float[Tensor, "p q"]:
        r"""Returns the weight of the data at ``b`` for the nodes at ``a``."""
        if math.isinf(self.radius):
            return torch.ones(len(a), len(b), dtype=torch.float64)
        r = self.distance(a, b) / (HALF_SUPPORT * self.radius)
        near = r < 2
        return torch.zeros_like(r).masked_scatter(near, gaspari_cohn(r[near]))


def local_weights(
    seen: Departures,
    coefficients: Float[Tensor, "n m"],
    analysis: Callable[[Departures], Tensor],
) -> Float[Tensor, "*batch n size size"]:
    r"""Returns the weights of one analysis per node, with the data near it.

    The error variance of a datum is divided by its coefficient; data of coefficient zero are left
    out.

    Arguments:
        seen: The whitened ensemble, for all the data.
        coefficients: The coefficient of each datum for each node.
        analysis: The analysis, e.g. :func:`symmetric_weights`.
    """
    most = max(1, int((coefficients > 0).sum(dim=-1).max()))
    near, index = coefficients.topk(most, dim=-1)
    root = near.sqrt()
    S = seen.anomalies[..., index].movedim(-3, -2) * root[:, None]
    return analysis(Departures(S, seen.innovation[..., index] * root))
