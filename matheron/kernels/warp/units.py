r"""Warps of a few parameters that mean something: they are composed into deeper ones.

They live in a box about the origin, of half-width one; see :class:`GaugedWarp`.

References:
    | Modeling nonstationary and asymmetric multivariate spatial covariances via deformations
    | (Vu, Zammit-Mangion and Cressie, 2022), https://doi.org/10.5705/ss.202020.0156
"""

from __future__ import annotations

__all__ = ["AffineWarp", "AxialWarp", "RadialWarp", "radial_lattice"]

import math
import torch
import torch.nn as nn
import torch.nn.functional as F

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .base import Warp, WarpChain, increasing_root
from ..base import positive

WIDEST = math.exp(1.5) / 2
"""The weight of a radial unit at which it folds at a distance; at -1 it does at its centre."""
MARGIN = 0.95
"""How near to folding a radial unit may come."""


class AffineWarp(Warp):
    r"""A linear map, the exponential of a matrix: any stretching and turning, without a fold.

    .. math:: w(x) = e^{L} x

    Arguments:
        dimensions: The number of coordinates.
        logarithm: The matrix :math:`L` to start from; by default zero.

    Raises:
        ValueError: If ``logarithm`` is not a finite matrix over the coordinates.

    Example:
        >>> warp = AffineWarp(2, [[0.0, 0.0], [0.0, 1.0]])
        >>> warp(torch.ones(1, 2).double()).tolist()
        [[1.0, 2.71828...]]
    """

    def __init__(
        self, dimensions: int, logarithm: Sequence[Sequence[float]] | Tensor | None = None
    ) -> None:
        super().__init__()
        self._check(dimensions)
        start = torch.zeros(dimensions, dimensions) if logarithm is None else logarithm
        L = torch.as_tensor(start, dtype=torch.float64).clone()
        if L.shape != (dimensions, dimensions) or not L.isfinite().all():
            msg = (
                f"AffineWarp(logarithm=...): expected a finite matrix of {dimensions} rows and "
                f"columns, got {L.tolist()}. Leave it out to start from the identity."
            )
            raise ValueError(msg)
        self.logarithm = nn.Parameter(L)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        return x @ torch.linalg.matrix_exp(self.logarithm).mT.to(x.dtype)

    def log_det_jacobian(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return self.logarithm.diagonal().sum().to(x.dtype).expand(x.shape[:-1])

    @torch.no_grad()
    def inverse(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        return u @ torch.linalg.matrix_exp(-self.logarithm).mT.to(u.dtype)


class AxialWarp(Warp):
    r"""A stretching along one axis, that varies along it.

    .. math:: w'(t) = \sum_{j=0}^{K} e^{\theta_j} B_j(t)

    with smooth steps between knots :math:`c_j`: :math:`B_j = s(a (t - c_j)) - s(a (t - c_{j+1}))`
    sum to one, for the logistic :math:`s`. The warp increases whatever :math:`\theta`, is
    infinitely smooth, and affine beyond the knots.

    Arguments:
        dimensions: The number of coordinates.
        axis: The number of the axis.
        knots: The number :math:`K` of steps.
        reach: The position of the last knot; the first is opposite.

    Raises:
        ValueError: If there is no such axis, or if there are fewer than two knots.

    Example:
        >>> AxialWarp(1, axis=0, knots=4)(torch.tensor([[0.3]]).double()).item()
        0.3
    """

    knots: Tensor

    def __init__(self, dimensions: int, axis: int = 0, knots: int = 8, reach: float = 1.0) -> None:
        super().__init__()
        self._check(dimensions)
        if not 0 <= axis < dimensions or knots < 2:
            msg = (
                f"AxialWarp(axis=..., knots=...): expected an axis below {dimensions} and two "
                f"knots or more, got {axis} and {knots}. Number axes from 0."
            )
            raise ValueError(msg)
        self.axis, end = axis, positive("AxialWarp", "reach", reach).item()
        places = torch.linspace(-end, end, knots, dtype=torch.float64)
        self.register_buffer("knots", places, persistent=False)
        self.sharpness = 2 * (knots - 1) / end
        self.theta = nn.Parameter(torch.zeros(knots + 1, dtype=torch.float64))

    def _value(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        slopes = self.theta.exp()
        ramps = F.softplus(self.sharpness * (t[..., None] - self.knots), threshold=40.0)
        return slopes[0] * t + (ramps * slopes.diff()).sum(dim=-1) / self.sharpness

    def _slope(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        v = self.sharpness * (t[..., None] - self.knots)
        first, last = torch.sigmoid(-v[..., :1]), torch.sigmoid(v[..., -1:])
        # differences of logistics as a product: no digits are lost where both are near one
        a, b = v[..., :-1], v[..., 1:]
        inner = torch.sigmoid(a) * torch.sigmoid(-b) * -torch.expm1(b - a)
        return (torch.cat([first, inner, last], dim=-1) * self.theta.exp()).sum(dim=-1)

    def _along(self, x: Tensor, t: Tensor) -> Tensor:
        i = self.axis
        return torch.cat([x[..., :i], t[..., None].to(x.dtype), x[..., i + 1 :]], dim=-1)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        return self._along(x, self._value(x[..., self.axis]))

    def log_det_jacobian(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return self._slope(x[..., self.axis]).log()

    def inverse(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        return self._along(u, increasing_root(self._value, u[..., self.axis]))


class RadialWarp(Warp):
    r"""A swelling or a shrinking about a centre, that dies away at a distance.

    .. math:: w(x) = x + \omega \, e^{-|x - c|^2 / (2 r^2)} (x - c),
        \qquad -1 < \omega < \tfrac{1}{2} e^{3/2}

    References:
        | A radial basis function deformation of the plane (Perrin and Monestiez, 1999)
        | https://doi.org/10.1007/978-94-015-9297-0_15

    Arguments:
        center: The centre :math:`c`, with a number per coordinate.
        radius: The radius :math:`r`.

    Raises:
        ValueError: If ``center`` is empty or ``radius`` is not positive.

    Example:
        >>> RadialWarp([0.0, 0.0], 0.5)(torch.ones(1, 2).double()).tolist()
        [[1.0, 1.0]]
    """

    center: Tensor

    def __init__(self, center: Sequence[float] | Tensor, radius: float = 0.5) -> None:
        super().__init__()
        c = torch.as_tensor(center, dtype=torch.float64).reshape(-1).clone()
        self._check(len(c))
        self.radius = positive("RadialWarp", "radius", radius).item()
        self.register_buffer("center", c, persistent=False)
        self.theta = nn.Parameter(torch.zeros((), dtype=torch.float64))

    @property
    def weight(self) -> Float[Tensor, ""]:
        r"""The weight :math:`\omega`, zero with its parameter, and kept off both folds."""
        e = self.theta.clamp(-40, 40)
        return MARGIN * WIDEST * torch.expm1(e) / (WIDEST + e.exp())

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the offset from the centre, :math:`q = |x - c|^2 / (2 r^2)`, and the swell."""
        away = x - self.center
        q = away.square().sum(dim=-1) / (2 * self.radius**2)
        return away, q, self.weight * (-q).exp()

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        away, _, swell = self._parts(x)
        return x + (swell[..., None] * away).to(x.dtype)

    def log_det_jacobian(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        _, q, swell = self._parts(x)
        across = (self.dimensions - 1) * torch.log1p(swell)
        return across + torch.log1p(swell * (1 - 2 * q))

    @torch.no_grad()
    def inverse(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        away = u - self.center
        far = away.norm(dim=-1)
        rate, w = 1 / (2 * self.radius**2), self.weight
        near = increasing_root(lambda r: r * (1 + w * (-rate * r * r).exp()), far)
        shrink = torch.where(far > 0, near / torch.where(far > 0, far, 1.0), 1.0)
        return self.center + shrink[..., None] * away


def radial_lattice(dimensions: int, count: int = 3, reach: float = 1.0) -> WarpChain:
    r"""Returns radial units one after the other, about the nodes of a lattice.

    Arguments:
        dimensions: The number of coordinates.
        count: The number of centres along each axis, two or more.
        reach: The position of the last centres; the first are opposite.

    Raises:
        ValueError: If ``count`` is below two.

    Example:
        >>> len(radial_lattice(2, 3).warps)
        9
    """
    if count < 2:
        msg = (
            f"radial_lattice(count=...): expected two centres or more along each axis, got "
            f"{count}. Use RadialWarp for one."
        )
        raise ValueError(msg)
    axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
    centers = torch.cartesian_prod(*[axis] * dimensions).reshape(-1, dimensions)
    radius = reach / (count - 1)  # half of their spacing
    return WarpChain([RadialWarp(c.tolist(), radius) for c in centers])
