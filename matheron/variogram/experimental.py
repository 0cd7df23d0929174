r"""The experimental variogram: cloud, classes, directions."""

from __future__ import annotations

__all__ = ["Cloud", "Variogram", "variogram"]

import numpy as np
import torch
import torch.nn as nn

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from jaxtyping import Float, Int
from torch import Tensor
from typing import TYPE_CHECKING, Any, overload

from .model import FittedVariogram, fit_model
from .pairs import Lags, Sector, pairs_of
from ..domain import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHUNK = 2_000_000
"""The number of pairs that are held at once."""


@dataclass(frozen=True)
class Cloud:
    r"""The variogram cloud: one dot per pair of data, to find outliers by."""

    distance: Float[Tensor, " p"]
    gamma: Float[Tensor, " p"]
    """Half the squared difference of each pair, averaged over the fields."""
    pairs: Int[Tensor, "p 2"]
    """The two data of each pair."""


@dataclass(frozen=True)
class Variogram:
    r"""An experimental variogram, by classes of distance that hold at least one pair."""

    distance: Float[Tensor, " k"]
    """The mean distance of the pairs of each class, in metres on the sphere (chords)."""
    gamma: Float[Tensor, " k"]
    """The semivariance of each class, in squared units of the field."""
    count: Float[Tensor, " k"]
    """The number of pairs of each class."""
    direction: int | float | None = None
    """The direction, in degrees counter-clockwise from the last axis; ``None`` for all."""
    unit: str = ""
    """The unit of the distance."""
    cloud: Cloud | None = None

    def fit(
        self,
        model: nn.Module | Callable[..., object],
        nugget: bool = True,
        strict: bool = True,
    ) -> FittedVariogram:
        r"""Fits a covariance model by weighted least squares.

        .. math:: \min_\theta \sum_k \frac{N_k}{\gamma_{\theta'}(h_k)^2}
            \left( \hat\gamma(h_k) - \gamma_\theta(h_k) \right)^2, \qquad
            \gamma_\theta(h) = \tau^2 + c_\theta(0) - c_\theta(h)

        where the weights are those of the previous iterate :math:`\theta'`, until nothing moves:
        weights that moved with :math:`\theta` would reward large variances.

        References:
            | Fitting variogram models by weighted least squares (Cressie, 1985)
            | https://doi.org/10.1007/BF01032109

        Arguments:
            model: Either a kernel ``kernel(a, b)`` of coordinates with one column, whose
                parameters are the start (it is copied, not changed); or a kernel class, or a
                ``functools.partial`` of one, which takes ``variance`` and ``lengthscale`` and is
                started from the variogram; or a correlation function of the scaled distance,
                e.g. ``lambda u: (-u).exp()``.
            nugget: Whether to fit a nugget :math:`\tau^2 \geq 0`.
            strict: Whether to raise where the fit does not converge.

        Returns:
            The fitted kernel, and the nugget.

        Raises:
            ValueError: If there are fewer classes than parameters, if the lags have no say in a
                parameter, or if the fit does not converge.

        Example:
            >>> h = torch.linspace(1, 20, 20, dtype=torch.float64)
            >>> seen = Variogram(h, 0.5 + 2 * (1 - (-h / 5).exp()), torch.ones_like(h))
            >>> fitted = seen.fit(lambda u: (-u).exp())
            >>> round(fitted.nugget, 4), round(fitted.kernel.variance.item(), 4)
            (0.5, 2.0)
        """
        return fit_model(self.distance, self.gamma, self.count, model, nugget, strict)

    def plot(self, ax: Axes | None = None, fitted: FittedVariogram | None = None) -> Axes:
        r"""Draws the variogram, its cloud where there is one, and a fitted model.

        Arguments:
            ax: The axes to draw on, by default new ones.
            fitted: The model to draw as a curve.
        """
        import matplotlib.pyplot as plt

        ax = plt.subplots(layout="constrained")[1] if ax is None else ax
        if self.cloud is not None:
            ax.plot(self.cloud.distance, self.cloud.gamma, ".", ms=1, color="0.75", zorder=0)
        label = None if self.direction is None else f"{self.direction:g}°"
        dots = ax.plot(self.distance, self.gamma, "o", label=label)[0]
        if fitted is not None:
            h = torch.linspace(0, float(self.distance[-1]), 201, dtype=torch.float64)[1:]
            ax.plot(h, fitted.gamma(h), color=dots.get_color())
        ax.set_xlabel(f"distance ({self.unit})" if self.unit else "distance")
        ax.set_ylabel("semivariance")
        ax.set_xlim(left=0, auto=None)
        ax.set_ylim(bottom=0, auto=None)
        if self.cloud is not None:  # its outliers would hide the classes
            ax.set_ylim(top=4 * float(self.gamma.max()), auto=None)
        return ax


# The options are written once, at the implementation: mypy would have them three times.
@overload
def variogram(
    points: Points,
    values: Float[Tensor, "*batch n"],
    bins: int | Float[Tensor, " edges"] = ...,
    *,
    direction: Sequence[int | float],
    **options: Any,
) -> list[Variogram]: ...
@overload
def variogram(
    points: Points,
    values: Float[Tensor, "*batch n"],
    bins: int | Float[Tensor, " edges"] = ...,
    *,
    direction: int | float | None = ...,
    **options: Any,
) -> Variogram: ...
def variogram(  # type: ignore[misc]
    points: Points,
    values: Float[Tensor, "*batch n"],
    bins: int | Float[Tensor, " edges"] = 15,
    *,
    max_distance: int | float | None = None,
    estimator: str = "matheron",
    direction: int | float | Sequence[int | float] | None = None,
    tolerance: int | float = 22.5,
    bandwidth: int | float | None = None,
    along: str | None = None,
    within: int | float | None = None,
    cloud: bool = False,
    size: int = 5_000_000,
    generator: torch.Generator | None = None,
) -> Variogram | list[Variogram]:
    r"""Returns the experimental variogram of scattered data.

    With :math:`N` pairs in a class of distance,

    .. math::
        \hat\gamma_\mathrm{matheron} &= \frac{1}{2 N} \sum (z_i - z_j)^2 \\
        \hat\gamma_\mathrm{cressie} &= \frac{1}{2} \Big( \frac{1}{N} \sum |z_i - z_j|^{1/2}
            \Big)^4 \Big/ \Big( 0.457 + \frac{0.494}{N} + \frac{0.045}{N^2} \Big)

    Distances are those of the kernels: chords in metres on the sphere, the units of the axes on
    the plane. A class holds its lower edge and not its upper one. Above ``size`` pairs, each
    scale takes the pairs of as many random data as that allows, so that short lags, which matter
    most, keep all of theirs.

    References:
        | Principles of geostatistics (Matheron, 1963)
        | https://doi.org/10.2113/gsecongeo.58.8.1246
        | Robust estimation of the variogram (Cressie & Hawkins, 1980)
        | https://doi.org/10.1007/BF01035243

    Arguments:
        points: The sites :math:`s` of the data.
        values: The data :math:`z`, with shape :math:`(n)`, or fields on the same sites with shape
            :math:`(*, n)`, which are pooled.
        bins: The number of classes of equal width, or their edges.
        max_distance: The largest distance, by default a third of the diagonal of the domain.
        estimator: ``"matheron"``, or ``"cressie"`` which is robust to outliers.
        direction: One direction, or several, in degrees counter-clockwise from the last axis
            (on the sphere 0 is east and 90 is north). ``None`` takes all pairs.
        tolerance: The half-angle around a direction, in degrees.
        bandwidth: The largest distance of a pair from the line of the direction.
        along: ``"space"`` or ``"time"``: the axes of the distance. By default space, where there
            is space.
        within: The largest separation along the other axes: in days where ``along="space"``, in
            metres or units of the plane where ``along="time"``.
        cloud: Whether to keep the pairs, at most ``size`` of them.
        size: The number of pairs, at each scale, above which they are drawn at random.
        generator: The random number generator, for that draw.

    Returns:
        The variogram, or a list with one per direction.

    Raises:
        ValueError: If values are not finite, if no pair falls in the classes, or if space and
            time are mixed without ``within``.

    Example:
        >>> points = Points(x=torch.arange(100.0))
        >>> seen = variogram(points, 0.1 * points.axis("x"), bins=torch.tensor([0.5, 1.5, 2.5]))
        >>> seen.distance.tolist(), seen.count.tolist()
        ([1.0, 2.0], [99.0, 98.0])
        >>> [round(g, 6) for g in seen.gamma.tolist()]  # slope^2 h^2 / 2
        [0.005, 0.02]
    """
    _check_options(estimator=estimator, size=size, tolerance=tolerance, bandwidth=bandwidth)
    z = _fields(points, values)
    lags = Lags.of(points, along, within)
    edges = _edges(bins, max_distance, lags)
    sectors = _sectors(lags, direction, tolerance, bandwidth)
    sums = [_Sums(edges, estimator, sector, size if cloud else 0) for sector in sectors]
    for i, j, distance in pairs_of(lags, edges, size, generator, max(1, CHUNK // len(z))):
        for s in sums:
            keep = slice(None) if s.sector is None else lags.aligned(i, j, s.sector)
            s.add(i[keep], j[keep], distance[keep], z, generator)
    results = [s.result(lags.unit, len(z)) for s in sums]
    return results if isinstance(direction, Sequence) else results[0]


def _fields(points: Points, values: Tensor) -> np.ndarray:
    if values.shape[-1:] != (len(points),) or len(points) < 2:
        msg = (
            f"variogram(values=...): expected one value per point, at least two, got shape "
            f"{tuple(values.shape)} for {len(points)} points. Pass values at the same points."
        )
        raise ValueError(msg)
    bad = int((~values.isfinite()).sum())
    if bad:
        msg = (
            f"variogram(values=...): expected finite values, got {bad} NaN or Inf among "
            f"{values.numel()}. Drop those points first, e.g. points[values.isfinite()]."
        )
        raise ValueError(msg)
    return values.to(torch.float64).reshape(-1, len(points)).numpy(force=True)


def _check_options(estimator: str, **numbers: int | float | None) -> None:
    if estimator not in ESTIMATORS:
        msg = (
            f"variogram(estimator=...): expected one of {sorted(ESTIMATORS)}, got "
            f"{estimator!r}. Choose one."
        )
        raise ValueError(msg)
    for name, number in numbers.items():
        if number is not None and not number > 0:
            msg = f"variogram({name}=...): expected a positive number, got {number}. Increase it."
            raise ValueError(msg)


def _edges(bins: int | Tensor, max_distance: int | float | None, lags: Lags) -> np.ndarray:
    if isinstance(bins, int):
        last = lags.diagonal / 3 if max_distance is None else max_distance
        edges = np.linspace(0.0, last, max(bins, 1) + 1)
    else:
        edges = bins.to(torch.float64).numpy(force=True)
        edges = edges if max_distance is None else edges[edges <= max_distance]
    if len(edges) < 2 or not edges[0] >= 0 or not (np.diff(edges) > 0).all():
        msg = (
            f"variogram(bins=..., max_distance=...): expected at least two increasing edges from "
            f"0 up, got {edges.tolist()}. Pass edges in the units of the distance."
        )
        raise ValueError(msg)
    return edges


def _sectors(
    lags: Lags,
    direction: int | float | Sequence[int | float] | None,
    tolerance: int | float,
    bandwidth: int | float | None,
) -> list[Sector | None]:
    if direction is None:
        return [None]
    lags.check_direction()
    angles = direction if isinstance(direction, Sequence) else [direction]
    return [Sector(a, tolerance, np.inf if bandwidth is None else bandwidth) for a in angles]


def _matheron(mean: np.ndarray, count: np.ndarray) -> np.ndarray:
    return mean / 2


def _cressie(mean: np.ndarray, count: np.ndarray) -> np.ndarray:
    return mean**4 / (2 * (0.457 + 0.494 / count + 0.045 / count**2))


ESTIMATORS = {"matheron": (2.0, _matheron), "cressie": (0.5, _cressie)}
"""The power of the differences that is averaged, and what makes gamma of the average."""


@dataclass
class _Sums:
    """Running sums over pairs, by class of distance."""

    edges: np.ndarray
    estimator: str
    sector: Sector | None
    keep: int
    totals: np.ndarray = field(init=False)
    clouds: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.totals = np.zeros((3, len(self.edges) - 1))

    def add(
        self,
        i: np.ndarray,
        j: np.ndarray,
        distance: np.ndarray,
        z: np.ndarray,
        generator: torch.Generator | None,
    ) -> None:
        difference = np.abs(z[:, i] - z[:, j])
        values = (difference ** ESTIMATORS[self.estimator][0]).mean(axis=0)
        label = np.searchsorted(self.edges, distance, side="right") - 1
        for total, weights in zip(self.totals, (None, distance, values), strict=True):
            total += np.bincount(label, weights, minlength=len(total))
        if self.keep:
            half = (difference**2).mean(axis=0) / 2
            self.clouds.append(np.stack([distance, half, i, j]))
            self.thin(generator)

    def thin(self, generator: torch.Generator | None) -> None:
        every = np.concatenate(self.clouds, axis=1)
        if every.shape[1] > self.keep:
            chosen = torch.randperm(every.shape[1], generator=generator)[: self.keep]
            every = every[:, chosen.sort().values.numpy()]
        self.clouds = [every]

    def result(self, unit: str, fields: int) -> Variogram:
        count, distance, values = self.totals[:, self.totals[0] > 0]
        if not len(count):
            msg = (
                f"variogram(bins=...): expected pairs between {self.edges[0]:.4g} and "
                f"{self.edges[-1]:.4g}, got none. Widen the classes, the tolerance or within."
            )
            raise ValueError(msg)
        gamma = ESTIMATORS[self.estimator][1](values / count, count * fields)
        direction = None if self.sector is None else self.sector.direction
        mean, semi, size = (torch.as_tensor(x) for x in (distance / count, gamma, count))
        return Variogram(mean, semi, size, direction, unit, self.cloud())

    def cloud(self) -> Cloud | None:
        if not self.clouds:
            return None
        distance, half, *pairs = torch.as_tensor(self.clouds[0])
        return Cloud(distance, half, torch.stack(pairs, dim=-1).long())
