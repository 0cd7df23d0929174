r"""The optimal interpolation of the 2020a ocean data challenge, exactly as published."""

from __future__ import annotations

__all__ = ["challenge_kernel", "oi_odc2020a"]

import math
import torch

from jaxtyping import Bool, Float
from torch import Tensor
from typing import Any

from ..domain import Grid, Points
from ..kernels import Gaussian
from ..observations import PointObservation
from ..posterior import Posterior
from ..priors import GaussianProcess
from ..solvers.local import LocalKriging

MOST = 20_000
"""The most data of a window: with a swath there are 12 000, and none may be left out."""


def challenge_kernel(
    duration: float = 7.0, lat: float = 1.0, lon: float = 1.0, variance: float = 1.0
) -> Gaussian:
    r"""Returns the covariance of the challenge, over (time, lat, lon) in days and degrees.

    .. math:: c = \sigma^2 \exp \left( -\frac{\Delta t^2}{L_t^2} - \frac{\Delta \phi^2}{L_y^2}
        - \frac{\Delta \lambda^2}{L_x^2} \right)

    There is no :math:`1/2`: each lengthscale is :math:`L / \sqrt{2}`.

    Example:
        >>> a, b = torch.zeros(1, 3).double(), torch.tensor([[7.0, 0.0, 0.0]]).double()
        >>> challenge_kernel()(a, b).item()  # 1 / e
        0.36787...
    """
    return Gaussian(variance, tuple(L / math.sqrt(2) for L in (duration, lat, lon)))


def oi_odc2020a(
    points: Points,
    values: Float[Tensor, " m"],
    grid: Grid,
    noise_std: float = 0.05,
    duration: float = 7.0,
    lat: float = 1.0,
    lon: float = 1.0,
    northern_limit: bool = False,
) -> Posterior:
    r"""Returns the map of the baseline of the 2020a challenge: its OI, to rounding.

    Each time is mapped from the data within :math:`2 L_t`, by the covariance of
    :func:`challenge_kernel` with variance one and mean zero, over plain differences of degrees.
    Data are those within one lengthscale of the box. The published code takes the limit to the
    north from the longitudes, which sets none: ``northern_limit`` sets it.

    It is a baseline, not the best that OI does: the variance is of no ocean, and its std is not
    to be trusted.

    References:
        | SSH mapping data challenge 2020a
        | https://github.com/ocean-data-challenges/2020a_SSH_mapping_NATL60

    Arguments:
        points: The data, with time, lat and lon; see :func:`matheron.mappers.coarsen`.
        values: Their heights, in metres, mean front included.
        grid: The grid of the map, with time, lat and lon.
        noise_std: The std of the noise, in metres.
        duration: :math:`L_t`, in days.
        lat: :math:`L_y`, in degrees.
        lon: :math:`L_x`, in degrees.
        northern_limit: Whether to leave out the data far to the north too.

    Raises:
        ValueError: If the grid has other axes, or no data are near.

    Example:
        >>> grid = Grid(time=[0.0, 1.0], lat=[33.0, 34.0], lon=[-65.0, -64.0])
        >>> points = Points(time=[0.0], lat=[33.0], lon=[295.0])
        >>> oi_odc2020a(points, torch.ones(1).double(), grid).mean[0].item()  # 1 / (1 + 0.05^2)
        0.99750...
    """
    if grid.dims != ("time", "lat", "lon") or points.dims != grid.dims:
        msg = (
            f"oi_odc2020a(grid=...): expected axes time, lat and lon, got {grid.dims} for the "
            f"grid and {points.dims} for the data. Name them so."
        )
        raise ValueError(msg)
    flat, seen = _degrees(grid), _on_branch(points, grid)
    near = _near(seen, flat, 2 * duration, lat, lon)
    if northern_limit:
        near &= seen.axis("lat") <= flat.axes["lat"][-1] + lat
    if not near.any():
        msg = (
            f"oi_odc2020a(points=...): expected data near the grid, got {len(seen)} elsewhere. "
            "Check the dates and the branch of longitudes."
        )
        raise ValueError(msg)
    prior = GaussianProcess(challenge_kernel(duration, lat, lon), flat)
    observation = PointObservation(flat, seen[near], noise_std)
    solver = LocalKriging(window=2 * duration, max_size=MOST)
    return solver(prior, observation)(values[near])


def _degrees(grid: Grid) -> Grid:
    r"""Returns the grid with degrees as plain coordinates."""
    axes: dict[str, Any] = grid.axes
    mask = None if grid.mask is None else grid.mask.reshape(grid.shape)
    return Grid(**axes, mask=mask, metric="plane", epoch=grid.epoch)


def _on_branch(points: Points, grid: Grid) -> Points:
    r"""Returns points in the days of a grid, with longitudes within half a turn of its middle."""
    points = points.since(grid.epoch)
    middle = (grid.axes["lon"][0] + grid.axes["lon"][-1]) / 2
    turns = ((points.axis("lon") - middle) / 360).round()  # those on the branch stay to the bit
    lon = points.axis("lon") - 360 * turns
    coords = torch.stack([points.axis("time"), points.axis("lat"), lon], dim=-1)
    return Points(coords, points.dims, metric="plane", epoch=grid.epoch)


def _near(points: Points, grid: Grid, reach: float, lat: float, lon: float) -> Bool[Tensor, " m"]:
    low = {"time": reach, "lat": lat, "lon": lon}
    high = {"time": reach, "lon": lon}
    near = torch.ones(len(points), dtype=torch.bool)
    for name, slack in low.items():
        near &= points.axis(name) >= grid.axes[name][0] - slack
    for name, slack in high.items():
        near &= points.axis(name) <= grid.axes[name][-1] + slack
    return near
