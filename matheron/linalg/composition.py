"""The canonical form of a covariance: sums of products of radial functions of scaled coordinates.

.. math:: c(i, j) = \\sum_t \\sigma_t^2 \\prod_{k \\in t} \\rho_k(|x_k(i) - x_k(j)|)

A kernel writes itself in this form; the compiled and the batched engines read it.
"""

from __future__ import annotations

import math
import numpy as np
import torch

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from jaxtyping import Float
from scipy.special import gammaln, kve
from torch import Tensor
from typing import Any

__all__ = [
    "Composition",
    "Factor",
    "RadialTable",
    "Term",
    "correlation",
    "dense",
    "matern_table",
    "radial_table",
]

KNOTS = 8192
NEGLIGIBLE = 1e-17


@dataclass(frozen=True)
class RadialTable:
    r"""A radial function tabulated in :math:`s = u^{1 / 2^r}`, read by cubic Hermite
    interpolation, 0 beyond the last knot.

    Arguments:
        shape: The shape parameter (:math:`\nu` of a Matern), with shape :math:`()`; it may require
            a gradient.
        roots: The number :math:`r` of square roots taken of the distance.
        step: The spacing of the knots in :math:`s`.
        values: The function :math:`\rho` at the knots.
        slopes: :math:`d\rho/ds` at the knots.
        shape_values: :math:`d\rho/d\nu` at the knots, at fixed distance.
        shape_slopes: :math:`d^2\rho/d\nu\,ds` at the knots.
    """

    shape: Float[Tensor, ""]
    roots: int
    step: float
    values: Float[Tensor, " knots"]
    slopes: Float[Tensor, " knots"]
    shape_values: Float[Tensor, " knots"]
    shape_slopes: Float[Tensor, " knots"]


@dataclass(frozen=True)
class Factor:
    """One radial function of the distance between coordinates that are already scaled, rotated and
    embedded.

    Arguments:
        coords: The coordinates, with shape :math:`(n, d)`; their distance is the argument
            :math:`u`.
        radial: One of ``exponential``, ``matern32``, ``matern52``, ``gaussian`` and ``table``.
        table: The table, for ``table`` only.
    """

    coords: Float[Tensor, "n d"]
    radial: str
    table: RadialTable | None = None

    def __post_init__(self) -> None:
        if self.radial not in RADIALS:
            msg = (
                f"Factor(radial=...): expected one of {', '.join(RADIALS)}, got {self.radial!r}. "
                "Tabulate other functions with radial_table."
            )
            raise ValueError(msg)
        if (self.table is None) == (self.radial == "table"):
            msg = (
                "Factor(table=...): expected a table for radial='table' and None otherwise, "
                f"got radial={self.radial!r}, "
                f"table={'None' if self.table is None else 'a table'}. Build one with "
                "matern_table or radial_table."
            )
            raise ValueError(msg)


@dataclass(frozen=True)
class Term:
    """A variance times a product of radial functions.

    Arguments:
        variance: The variance of the term, with shape :math:`()`.
        factors: The radial functions.
    """

    variance: Float[Tensor, ""]
    factors: tuple[Factor, ...]


Composition = tuple[Term, ...]


def exponential(u: Tensor) -> Tensor:
    """Matern of order 1/2."""
    return torch.exp(-u)


def matern32(u: Tensor) -> Tensor:
    """Matern of order 3/2."""
    return (1 + u) * torch.exp(-u)


def matern52(u: Tensor) -> Tensor:
    """Matern of order 5/2."""
    return (1 + u + u * u / 3) * torch.exp(-u)


def gaussian(u: Tensor) -> Tensor:
    """Squared exponential."""
    return torch.exp(-0.5 * u * u)


CLOSED: dict[str, Callable[[Tensor], Tensor]] = {
    "exponential": exponential,
    "matern32": matern32,
    "matern52": matern52,
    "gaussian": gaussian,
}
RADIALS = (*CLOSED, "table")


def hermite(s: Tensor, values: Tensor, slopes: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Cubic Hermite interpolant at ``s`` and its derivative; both 0 beyond the last knot."""
    x = s / step
    left = x.floor().clamp(max=len(values) - 2)
    t, k = x - left, left.long()
    a, b, da, db = values[k], values[k + 1], slopes[k] * step, slopes[k + 1] * step
    c2, c3 = 3 * (b - a) - 2 * da - db, 2 * (a - b) + da + db
    inside = x < len(values) - 1
    value = a + t * (da + t * (c2 + t * c3))
    slope = (da + t * (2 * c2 + 3 * t * c3)) / step
    return torch.where(inside, value, 0.0), torch.where(inside, slope, 0.0)


class TableLookup(torch.autograd.Function):
    r"""Reads a radial table, with derivatives in the distance and in the shape, forward and
    backward.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        u: Tensor,
        shape: Tensor,
        values: Tensor,
        slopes: Tensor,
        shape_values: Tensor,
        shape_slopes: Tensor,
        roots: int,
        step: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        s = u ** (0.5**roots)
        value, slope = hermite(s, values, slopes, step)
        safe = torch.where(u > 0, u, 1.0)
        by_distance = torch.where(u > 0, slope * s / (2**roots * safe), 0.0)
        by_shape, _ = hermite(s, shape_values, shape_slopes, step)
        return value, by_distance, by_shape

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        _, by_distance, by_shape = output
        ctx.mark_non_differentiable(by_distance, by_shape)
        ctx.shape_size = inputs[1].shape
        ctx.save_for_backward(by_distance, by_shape)
        ctx.save_for_forward(by_distance, by_shape)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: object) -> tuple[Tensor | None, ...]:
        by_distance, by_shape = ctx.saved_tensors
        shape = (
            (upstream * by_shape).sum().reshape(ctx.shape_size)
            if ctx.needs_input_grad[1]
            else None
        )
        return upstream * by_distance, shape, None, None, None, None, None, None

    @staticmethod
    def jvp(
        ctx: Any, u: Tensor | None, shape: Tensor | None, *_: object
    ) -> tuple[Tensor, None, None]:
        by_distance, by_shape = ctx.saved_tensors
        along = torch.zeros_like(by_distance)
        along = along if u is None else along + by_distance * u
        along = along if shape is None else along + by_shape * shape
        return along, None, None


def correlation(
    radial: str, table: RadialTable | None, u: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    r"""Radial function :math:`\rho(u)` in torch, differentiable in the distance and in the shape
    of the table.

    The derivative of a table at :math:`u = 0` is set to 0, which is exact once multiplied by the
    (zero) difference of coordinates.

    Arguments:
        radial: The name of the function, see :class:`Factor`.
        table: The table, for ``table`` only.
        u: The distances, with shape :math:`(*)`.

    Returns:
        The correlations, with shape :math:`(*)`.

    Example:
        >>> u = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> correlation("matern32", None, u)
        tensor([1.0000, 0.7358], dtype=torch.float64)
    """
    if table is None:
        return CLOSED[radial](u)
    stored = (table.values, table.slopes, table.shape_values, table.shape_slopes)
    arrays = tuple(a.to(u) for a in stored)
    return TableLookup.apply(u, table.shape.to(u), *arrays, table.roots, table.step)[0]


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances between two sets of points, with gradient 0 (not NaN) between coincident
    points.
    """
    square = (a[..., :, None, :] - b[..., None, :, :]).square().sum(-1)
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)


def dense(composition: Composition) -> Float[Tensor, "n n"]:
    """Covariance matrix of a composition, without noise: the reference of both engines, for small
    sizes.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> dense((Term(torch.tensor(2.0, dtype=torch.float64), (Factor(x, "exponential"),)),))
        tensor([[2.0000, 0.7358],
                [0.7358, 2.0000]], dtype=torch.float64)
    """
    total = torch.zeros(())
    for term in composition:
        product = term.variance
        for factor in term.factors:
            product = product * correlation(
                factor.radial, factor.table, distance(factor.coords, factor.coords)
            )
        total = total + product
    return total


def bessel_matern(nu: float, u: np.ndarray) -> np.ndarray:
    r""":math:`2^{1-\nu} / \Gamma(\nu)\, u^\nu K_\nu(u)`, without overflow."""
    scale = (1 - nu) * math.log(2.0) - gammaln(nu)
    safe = np.where(u > 0, u, 1.0)
    bessel = kve(nu, safe)
    finite = np.isfinite(bessel) & (u > 0)
    log = scale + nu * np.log(safe) + np.log(np.where(finite, bessel, 1.0)) - safe
    return np.where(finite, np.exp(log), ascending(nu, u))


def ascending(nu: float, u: np.ndarray) -> np.ndarray:
    """First terms of the Matern near 0: it is only read where the Bessel function overflows."""
    first = u**2 / (4 * (nu - 1)) if nu > 1 else 0.0 * u
    second = u**4 / (32 * (nu - 1) * (nu - 2)) if nu > 2 else 0.0 * u
    return 1.0 - first + second


def bessel_matern_slope(nu: float, u: np.ndarray) -> np.ndarray:
    r"""Derivative in :math:`\log u`: :math:`-2^{1-\nu} / \Gamma(\nu)\, u^{\nu + 1} K_{\nu -
    1}(u)`.
    """
    scale = (1 - nu) * math.log(2.0) - gammaln(nu)
    safe = np.where(u > 0, u, 1.0)
    bessel = kve(abs(nu - 1), safe)
    finite = np.isfinite(bessel) & (u > 0)
    log = scale + (nu + 1) * np.log(safe) + np.log(np.where(finite, bessel, 1.0)) - safe
    series = -(u**2) / (2 * (nu - 1)) if nu > 1 else 0.0 * u
    return np.where(finite, -np.exp(log), series)


def reach(nu: float) -> float:
    """Distance beyond which the Matern is negligible."""
    u = np.geomspace(1.0, 400.0 + 10 * nu, 4000)
    return float(u[np.argmax(bessel_matern(nu, u) < NEGLIGIBLE)])


def differentiate(function: Callable[[float], np.ndarray], nu: float) -> np.ndarray:
    """Derivative in the shape by central differences of order 6."""
    h = 4e-3 * min(1.0, nu)
    weights = (0.75, -0.15, 1.0 / 60.0)
    return (
        sum(w * (function(nu + k * h) - function(nu - k * h)) for k, w in enumerate(weights, 1))
        / h
    )


@lru_cache(maxsize=64)
def matern_arrays(nu: float) -> tuple[int, float, Tensor, Tensor, Tensor, Tensor]:
    """Number of square roots, step, and the four tabulated functions."""
    roots = next((r for r in (1, 2, 3) if nu * 2 ** (r + 1) >= 4), 4)
    s = np.linspace(0.0, reach(nu) ** (0.5**roots), KNOTS)
    u = s ** (2**roots)
    chain = np.where(s > 0, 2**roots / np.where(s > 0, s, 1.0), 0.0)  # d log u / d s
    arrays = (
        bessel_matern(nu, u),
        bessel_matern_slope(nu, u) * chain,
        differentiate(lambda shape: bessel_matern(shape, u), nu),
        differentiate(lambda shape: bessel_matern_slope(shape, u), nu) * chain,
    )
    a, b, c, d = (torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)
    return roots, float(s[1]), a, b, c, d


def matern_table(nu: Float[Tensor, ""]) -> RadialTable:
    r"""Table of a Matern correlation of any order, :math:`\rho(u) = 2^{1-\nu} / \Gamma(\nu)\,
    u^\nu K_\nu(u)`.

    The factor :math:`\sqrt{2\nu}` of the usual parametrisation belongs to the coordinates. The
    error is under :math:`10^{-9}`
    for :math:`\nu \geq 0.3`. The arrays are kept for the last orders asked for.

    Arguments:
        nu: The order :math:`\nu > 0.05`, with shape :math:`()`; it may require a gradient.

    Returns:
        The table.

    Raises:
        ValueError: If ``nu`` is not between 0.05 and 50.

    Example:
        >>> table = matern_table(torch.tensor(0.8, dtype=torch.float64))
        >>> table.roots, table.values[0].item()
        (2, 1.0)
    """
    value = float(nu.detach())
    if not 0.05 < value <= 50:
        msg = (
            f"matern_table(nu=...): expected 0.05 < nu <= 50, got {value}. Use the Gaussian "
            "kernel for very smooth fields."
        )
        raise ValueError(msg)
    return RadialTable(nu, *matern_arrays(value))


def radial_table(
    function: Callable[[Tensor], Tensor],
    derivative: Callable[[Tensor], Tensor],
    end: float,
    knots: int = KNOTS,
) -> RadialTable:
    r"""Table of a radial function with compact support :math:`[0, e]` and no shape parameter, in
    :math:`s = u^{1/2}`.

    Arguments:
        function: The function :math:`\rho`, with :math:`\rho(0) = 1`.
        derivative: Its derivative :math:`\rho'`.
        end: The end :math:`e` of the support.
        knots: The number of knots.

    Returns:
        The table.

    Raises:
        ValueError: If ``function`` is not 1 at 0.

    Example:
        >>> table = radial_table(lambda u: 1 - u, lambda u: -torch.ones_like(u), 1.0)
        >>> u = torch.tensor([0.25, 2.0], dtype=torch.float64)
        >>> correlation("table", table, u)
        tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    s = torch.linspace(0.0, end**0.5, knots, dtype=torch.float64)
    u = (s * s).clamp(max=end)
    values, slopes = function(u), derivative(u) * 2 * s
    if not math.isclose(float(values[0]), 1.0, rel_tol=1e-12):
        msg = (
            f"radial_table(function=...): expected 1 at distance 0, got {float(values[0])}. "
            "Divide by the value at 0."
        )
        raise ValueError(msg)
    zeros = torch.zeros_like(s)
    return RadialTable(zeros[0], 1, float(s[1]), values, slopes, zeros, zeros)
