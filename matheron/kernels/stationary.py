r"""Kernels of a distance, with full geometric anisotropy: Matern, Gaussian, Wendland."""

from __future__ import annotations

__all__ = ["Gaussian", "Matern", "Stationary", "Wendland"]

import abc
import functools
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor
from typing import ClassVar

from .base import Kernel, positive
from .quick import ORDERS, closed_form, half_integer, quick, quick_table, suits
from ..linalg.composition import (
    Composition,
    Factor,
    RadialTable,
    Term,
    correlation,
    matern_table,
    radial_table,
)

PLANES = {1: ((1, 2),), 3: ((1, 2), (1, 3), (2, 3))}
"""The planes, counted from the last axis, in which each rotation angle turns."""


def distance(
    a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
) -> Float[Tensor, "*batch p q"]:
    r"""Returns Euclidean distances, exactly zero and with zero gradient where sites coincide."""
    square = (a[..., :, None, 0] - b[..., None, :, 0]).square()
    for i in range(1, a.shape[-1]):
        square = square + (a[..., :, None, i] - b[..., None, :, i]).square()
    near = square == 0
    return torch.where(near, 0.0, torch.where(near, 1.0, square).sqrt())


class Stationary(Kernel):
    r"""A covariance :math:`\sigma^2 \rho(\|A (a - b)\|)` with geometric anisotropy.

    :math:`A^{-1}` has the lengthscales as singular values, along axes that may be rotated.

    Arguments:
        variance: The variance :math:`\sigma^2`, in squared units of the field.
        lengthscale: The lengthscale :math:`\ell`, in the units of the coordinates (metres on the
            sphere, days for time): one number, or one per axis of the domain. On the sphere the
            third, vertical, direction takes the geometric mean of the last two.
        rotation: The angle, in degrees counter-clockwise from the last axis (east, or x), of the
            direction that carries the last lengthscale; three angles, in the planes
            (x, y), (x, z), (y, z), for three axes. ``None`` keeps the axes, and learns no angle.
        axes: ``"time"`` for a kernel of the first coordinate only, ``"space"`` for a kernel of
            all the others, ``None`` for all.

    Raises:
        ValueError: If ``variance`` or ``lengthscale`` is not positive, or the shapes disagree.
    """

    radial: str

    def __init__(
        self,
        variance: float | Tensor = 1.0,
        lengthscale: float | Sequence[float] | Tensor = 1.0,
        rotation: float | Sequence[float] | None = None,
        axes: str | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        self.log_variance = nn.Parameter(positive(where, "variance", variance).log())
        scale = positive(where, "lengthscale", lengthscale)
        if axes not in {None, "time", "space"}:
            msg = f"{where}(axes=...): expected 'time', 'space' or None, got {axes!r}. Choose one."
            raise ValueError(msg)
        self.axes = axes
        diagonal, shear = _metric_logarithm(where, scale, rotation)
        self.log_lengthscale = nn.Parameter(diagonal)
        self.shear = None if shear is None else nn.Parameter(shear)

    @property
    def linear(self) -> bool:
        return True

    @property
    def variance(self) -> Float[Tensor, ""]:
        r"""The variance :math:`\sigma^2`."""
        return self.log_variance.exp()

    @property
    def lengthscale(self) -> Tensor:
        r"""The lengthscales along the (rotated) axes."""
        return self.principal_axes()[0]

    @property
    def rotation(self) -> Tensor | None:
        r"""The angle, within +-45 degrees, of the direction of the last lengthscale."""
        return self.principal_axes()[1]

    def principal_axes(self) -> tuple[Tensor, Tensor | None]:
        r"""Returns the lengthscales and the rotation, each direction by its nearest axis."""
        if self.shear is None:
            return self.log_lengthscale.exp(), None
        values, vectors = torch.linalg.eigh(self._logarithm())
        nearest = vectors.abs().argmax(dim=1)
        if len(nearest.unique()) < len(nearest):  # on a diagonal of the axes: any order will do
            nearest = torch.arange(len(values))
        angles = _angles(vectors[:, nearest], len(self.shear))
        return values[nearest].exp(), torch.rad2deg(angles).squeeze()

    def _logarithm(self) -> Float[Tensor, "d d"]:
        r"""Returns the logarithm of the matrix of lengthscales, a symmetric matrix."""
        assert self.shear is not None
        d = self.log_lengthscale.shape[0]
        full = torch.diag_embed(self.log_lengthscale)
        for value, (i, j) in zip(self.shear, PLANES[len(self.shear)], strict=True):
            unit = torch.zeros(d, d, dtype=full.dtype, device=full.device)
            unit[-i, -j] = unit[-j, -i] = 1.0
            full = full + value * unit
        return full

    def _select(self, x: Float[Tensor, "*batch k"]) -> Tensor:
        if self.axes is None:
            return x
        return x[..., :1] if self.axes == "time" else x[..., 1:]

    def scaled(self, x: Float[Tensor, "*batch k"]) -> Tensor:
        r"""Returns :math:`A x`: the coordinates in lengthscales, along the rotated axes."""
        x = self._select(x)
        logs = self.log_lengthscale
        if logs.ndim == 0:
            return x * (-logs).exp()
        d, k = logs.shape[0], x.shape[-1]
        if k not in {d, d + 1} or (k == d + 1 and d < 2):
            msg = (
                f"{type(self).__name__}(lengthscale=...): expected one value or one per axis of "
                f"the domain, got {d} values for {k} coordinates. Give as many as there are axes."
            )
            raise ValueError(msg)
        x, up = (x[..., :d], x[..., d:])
        if self.shear is None:
            x = x * (-logs).exp()
        else:
            x = x @ torch.linalg.matrix_exp(-self._logarithm().to(x.dtype))
        return torch.cat([x, up * (-(logs[-1] + logs[-2]) / 2).exp()], dim=-1)

    @abc.abstractmethod
    def _table(self) -> RadialTable | None:
        r"""Returns the tabulated radial function, if it has no closed form."""

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        x, s = self.scaled(a), self.scaled(b)
        if suits(x, s, self.variance):
            return self._quick(x, s)
        return self.variance * self._correlation(distance(x, s))

    def _correlation(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return correlation(self.radial, self._table(), u)

    def _quick(self, x: Float[Tensor, "p k"], s: Float[Tensor, "q k"]) -> Float[Tensor, "p q"]:
        table = self._table()
        if table is None:
            return quick(x, s, self.variance.item(), self._polynomial)
        return quick_table(x, s, self.variance.item(), table)

    @property
    def _polynomial(self) -> tuple[float, ...] | None:
        r"""The polynomial before the exponential of the distance, of those that are such."""
        return None

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        return self.variance.expand(a.shape[:-1])

    def terms(self, x: Float[Tensor, "n k"]) -> Composition:
        return (Term(self.variance, (Factor(self.scaled(x), self.radial, self._table()),)),)


def _times(x: Float[Tensor, "*batch d"], A: Float[Tensor, "d d"]) -> Float[Tensor, "*batch d"]:
    r"""Returns :math:`x A` by columns: for a thin matrix quicker than a library call."""
    product = x[..., :1] * A[0]
    for i in range(1, len(A)):
        product = product + x[..., i : i + 1] * A[i]
    return product


def _metric_logarithm(
    where: str, scale: Tensor, rotation: float | Sequence[float] | None
) -> tuple[Tensor, Tensor | None]:
    r"""Returns the diagonal and the off-diagonal of the logarithm of the lengthscale matrix."""
    if rotation is None:
        return scale.log(), None
    angles = torch.deg2rad(torch.as_tensor(rotation, dtype=torch.float64).reshape(-1))
    if scale.ndim == 0 or len(scale) < 2 or len(angles) not in PLANES or len(scale) < len(angles):
        msg = (
            f"{where}(rotation=...): expected one angle (two axes) or three (three axes) with one "
            f"lengthscale per axis, got {len(angles)} angles for lengthscale of shape "
            f"{tuple(scale.shape)}. Give lengthscale per axis."
        )
        raise ValueError(msg)
    turn = torch.eye(len(scale), dtype=torch.float64)
    for angle, (i, j) in zip(angles, PLANES[len(angles)], strict=True):
        turn = turn @ _plane(angle, i, j, len(scale))
    full = turn @ torch.diag(scale.log()) @ turn.mT
    shear = torch.stack([full[-i, -j] for i, j in PLANES[len(angles)]])
    return full.diagonal().clone(), shear


def _plane(angle: Tensor, i: int, j: int, d: int) -> Float[Tensor, "d d"]:
    r"""Returns the rotation that turns the i-th axis from the end towards the j-th."""
    plane = torch.eye(d, dtype=torch.float64)
    plane[-i, -i] = plane[-j, -j] = angle.cos()
    plane[-j, -i], plane[-i, -j] = angle.sin(), -angle.sin()
    return plane


def _angles(turn: Float[Tensor, "d d"], count: int) -> Float[Tensor, " count"]:
    r"""Returns the angles, in the planes of `PLANES`, of a rotation known up to signs."""
    turn = turn * torch.where(turn.diagonal() < 0, -1.0, 1.0)
    first = torch.atan2(turn[-2, -1], turn[-1, -1])
    if count == 1:
        return first[None]
    second = torch.atan2(turn[-3, -1], torch.hypot(turn[-2, -1], turn[-1, -1]))
    d = len(turn)
    rest = (_plane(first, 1, 2, d) @ _plane(second, 1, 3, d)).mT @ turn
    return torch.stack([first, second, torch.atan2(rest[-3, -2], rest[-2, -2])])


class Matern(Stationary):
    r"""The Matern covariance, of any smoothness :math:`\nu > 0`.

    .. math:: c(r) = \sigma^2 \frac{2^{1 - \nu}}{\Gamma(\nu)} u^\nu K_\nu(u),
        \qquad u = \sqrt{2 \nu} \, r / \ell

    It is exponential at :math:`\nu = 1/2` and tends to a Gaussian as :math:`\nu` grows.

    References:
        | Interpolation of Spatial Data: Some Theory for Kriging (Stein, 1999)
        | https://doi.org/10.1007/978-1-4612-1494-6

    Arguments:
        nu: The smoothness :math:`\nu`.
        learn_nu: Whether a fit may change ``nu``.

    Example:
        >>> kernel = Matern(nu=0.5, variance=2.0, lengthscale=3.0)
        >>> kernel(torch.zeros(1, 1), torch.full((1, 1), 3.0)).item()  # 2 / e
        0.73575...
    """

    CLOSED: ClassVar[dict[float, str]] = {0.5: "exponential", 1.5: "matern32", 2.5: "matern52"}

    def __init__(
        self,
        nu: float = 1.5,
        variance: float | Tensor = 1.0,
        lengthscale: float | Sequence[float] | Tensor = 1.0,
        rotation: float | Sequence[float] | None = None,
        axes: str | None = None,
        learn_nu: bool = False,
    ) -> None:
        super().__init__(variance, lengthscale, rotation, axes)
        self.log_nu = nn.Parameter(positive("Matern", "nu", nu).log(), requires_grad=learn_nu)
        self.learn_nu = learn_nu
        if not 0.05 <= nu <= 50:
            msg = (
                f"Matern(nu=...): expected a smoothness between 0.05 and 50, got {nu}. "
                "Use Gaussian() for a smoother field, a Nugget() for a rougher one."
            )
            raise ValueError(msg)

    @property
    def nu(self) -> Float[Tensor, ""]:
        r"""The smoothness :math:`\nu`."""
        return self.log_nu.exp()

    @property
    def radial(self) -> str:  # type: ignore[override]
        r"""The name of the radial function, closed at half-integers that are not learned."""
        if self.learn_nu or self.log_nu.requires_grad:
            return "table"
        return self.CLOSED.get(round(self.nu.item(), 12), "table")

    @property
    def _polynomial(self) -> tuple[float, ...] | None:
        order = round(self.nu.item() - 0.5, 12)
        fixed = not (self.learn_nu or self.log_nu.requires_grad)
        known = fixed and order.is_integer() and order <= ORDERS
        return half_integer(int(order)) if known else None

    def _correlation(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        c = self._polynomial
        return super()._correlation(u) if c is None else closed_form(u, c)

    def _quick(self, x: Float[Tensor, "p k"], s: Float[Tensor, "q k"]) -> Float[Tensor, "p q"]:
        c = self._polynomial
        return super()._quick(x, s) if c is None else quick(x, s, self.variance.item(), c)

    def scaled(self, x: Float[Tensor, "*batch k"]) -> Tensor:
        return super().scaled(x) * (2 * self.nu).sqrt()

    def _table(self) -> RadialTable | None:
        return matern_table(self.nu) if self.radial == "table" else None


class Gaussian(Stationary):
    r"""The Gaussian covariance :math:`\sigma^2 \exp(-r^2 / (2 \ell^2))`.

    Fields are analytic: without noise, more than a few dozen data per lengthscale make a
    covariance matrix that cannot be factorised in double precision.

    Example:
        >>> Gaussian(lengthscale=2.0)(torch.zeros(1, 1), torch.full((1, 1), 2.0)).item()
        0.60653...
    """

    radial = "gaussian"

    def _table(self) -> None:
        return None


class Wendland(Stationary):
    r"""The Wendland covariance, exactly zero beyond the lengthscale.

    .. math:: c(r) = \sigma^2 (1 - u)_+^{2 + 2k} p_k(u), \qquad u = r / \ell

    with :math:`p_0 = 1`, :math:`p_1 = 4u + 1` and :math:`p_2 = (35 u^2 + 18 u + 3) / 3`; it is
    :math:`2k` times differentiable, and positive definite in three dimensions or fewer.

    References:
        | Piecewise polynomial, positive definite and compactly supported radial functions
        | (Wendland, 1995), https://doi.org/10.1007/BF02123482

    Arguments:
        smoothness: The order :math:`k`: 0, 1 or 2.

    Example:
        >>> Wendland(lengthscale=2.0)(torch.zeros(1, 1), torch.tensor([[1.0], [2.5]])).tolist()
        [[0.1875, 0.0]]
    """

    radial = "table"

    def __init__(
        self,
        variance: float | Tensor = 1.0,
        lengthscale: float | Sequence[float] | Tensor = 1.0,
        rotation: float | Sequence[float] | None = None,
        axes: str | None = None,
        smoothness: int = 1,
    ) -> None:
        super().__init__(variance, lengthscale, rotation, axes)
        if smoothness not in {0, 1, 2}:
            msg = f"Wendland(smoothness=...): expected 0, 1 or 2, got {smoothness}. Choose one."
            raise ValueError(msg)
        self.smoothness = smoothness

    def scaled(self, x: Float[Tensor, "*batch k"]) -> Tensor:
        scaled = super().scaled(x)
        if scaled.shape[-1] > 3:
            msg = (
                f"Wendland(axes=...): expected at most 3 coordinates, where it is positive "
                f"definite, got {scaled.shape[-1]}. Multiply one over 'time' by one over 'space'."
            )
            raise ValueError(msg)
        return scaled

    def _table(self) -> RadialTable:
        return _wendland(self.smoothness)


def _wendland_value(u: Tensor, k: int) -> Tensor:
    bump = (1 - u).clamp(min=0)
    factor = (torch.ones_like(u), 4 * u + 1, (35 * u.square() + 18 * u + 3) / 3)[k]
    return bump ** (2 + 2 * k) * factor


def _wendland_slope(u: Tensor, k: int) -> Tensor:
    bump = (1 - u).clamp(min=0)
    return (-2 * bump, -20 * u * bump**3, -56 * u * (5 * u + 1) * bump**5 / 3)[k]


@functools.lru_cache(maxsize=3)
def _wendland(k: int) -> RadialTable:
    return radial_table(lambda u: _wendland_value(u, k), lambda u: _wendland_slope(u, k), end=1.0)
