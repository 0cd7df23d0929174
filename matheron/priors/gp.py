r"""Gaussian processes, about a known mean or an unknown trend."""

from __future__ import annotations

__all__ = ["GaussianProcess"]

import torch

from jaxtyping import Float
from torch import Tensor

from .base import KernelPrior, TrendedPrior
from ..domain import Grid, Points
from ..kernels import Kernel
from ..kernels.spacetime import Gneiting
from ..kernels.stationary import Stationary


class GaussianProcess(KernelPrior, TrendedPrior):
    r"""A Gaussian process: a covariance function, and a mean or a trend.

    .. math:: f(s) = m + F(s)^\top \beta + g(s), \qquad g \sim \mathcal{GP}(0, c)

    Without a trend, conditioning is simple kriging. With one, :math:`\beta` is estimated with the
    field by generalised least squares and its uncertainty is part of the posterior: ordinary
    kriging with ``trend="1"``, universal kriging and kriging with external drift otherwise.

    References:
        | Geostatistics: Modeling Spatial Uncertainty (Chiles and Delfiner, 2012)
        | https://doi.org/10.1002/9781118136188

    Arguments:
        kernel: The covariance function, of Cartesian coordinates: metres on the sphere, days.
        domain: Where the field is wanted: a grid, or points.
        mean: The known mean :math:`m`, in the units of the field.
        trend: The unknown trend, e.g. ``"1 + lon + lat"``; see :class:`Trend`.

    Raises:
        ValueError: If the kernel does not fit the axes of the domain, or the trend its names.

    Example:
        >>> from matheron.kernels import Matern
        >>> prior = GaussianProcess(Matern(1.5, lengthscale=2.0), Grid(x=[0.0, 1.0, 2.0]))
        >>> prior.sample(4, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        kernel: Kernel,
        domain: Grid | Points,
        mean: float = 0.0,
        trend: str | None = None,
    ) -> None:
        super().__init__()
        _check_axes(kernel, domain)
        self.kernel, self.domain = kernel, domain
        self.center = domain.center if domain.metric == "sphere" else (0.0, 0.0)
        self._set_trend(mean, trend)

    def on(self, domain: Grid | Points) -> GaussianProcess:
        r"""Returns the same law (the kernel is shared) on another domain."""
        new = GaussianProcess(self.kernel, domain, self.constant)
        new.center, new.trend, new.coefficients = self.center, self.trend, self.coefficients
        new.train(self.training)
        return new

    def coordinates(self, points: Points) -> Float[Tensor, "m k"]:
        if points.dims != self.domain.dims or points.metric != self.domain.metric:
            msg = (
                f"GaussianProcess(domain=...): expected points with dims {self.domain.dims} on "
                f"the {self.domain.metric}, got {points.dims} on the {points.metric}. "
                "Name the coordinates alike."
            )
            raise ValueError(msg)
        return points.since(self.domain.epoch).cartesian(self.center)


def _check_axes(kernel: Kernel, domain: Grid | Points) -> None:
    d = len(domain.dims)
    for part in kernel.modules():
        axes = part.axes if isinstance(part, Stationary) else None
        axes = "time" if isinstance(part, Gneiting) else axes
        if axes is not None and (domain.dims[0] != "time" or (axes == "space" and d == 1)):
            msg = (
                f"GaussianProcess(domain=...): expected an axis 'time' and axes of space, for "
                f"{type(part).__name__} over {axes!r}, got {domain.dims}. Name the axis of time "
                "'time', or drop axes=... from the kernel."
            )
            raise ValueError(msg)
    k = d + 1 if domain.metric == "sphere" else d
    try:
        kernel(torch.zeros(1, k, dtype=torch.float64), torch.zeros(1, k, dtype=torch.float64))
    except RuntimeError as error:
        msg = (
            f"GaussianProcess(kernel=...): expected a kernel for axes {domain.dims}, got "
            f"{type(kernel).__name__} that fails on them ({error}). Give lengthscale per axis."
        )
        raise ValueError(msg) from error
    for part in kernel.modules():
        scalar = isinstance(part, Stationary) and part.axes is None
        if scalar and "time" in domain.dims and d > 1 and part.log_lengthscale.ndim == 0:
            msg = (
                f"GaussianProcess(kernel=...): expected a lengthscale per axis of {domain.dims}, "
                f"got one number for both time and space in {type(part).__name__}. Give e.g. "
                "lengthscale=(7.0, 1e5, 1e5), or axes='time' and axes='space'."
            )
            raise ValueError(msg)
