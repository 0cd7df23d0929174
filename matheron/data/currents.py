r"""Currents of a map of heights: what balances its slope on the turning Earth."""

from __future__ import annotations

__all__ = ["EQUATOR", "geostrophic_currents"]

import numpy as np
import torch

from jaxtyping import Float
from torch import Tensor

from .errors import call, refuse
from ..domain import EARTH_RADIUS, Grid

EQUATOR = 5.0
"""The latitude, in degrees, under which the balance does not hold."""
GRAVITY = 9.80665
ROTATION = 7.292115e-5


def geostrophic_currents(
    grid: Grid, height: Float[Tensor, " n"], equator: float = EQUATOR
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    r"""Returns the geostrophic velocity of a map, to the east and to the north, in m/s.

    .. math:: u = -\frac{g}{f} \frac{\partial \eta}{\partial y}, \qquad
        v = \frac{g}{f} \frac{\partial \eta}{\partial x}, \qquad f = 2 \Omega \sin \phi

    Slopes are central differences, one-sided at edges and next to land. Where the balance does
    not hold the velocity is NaN rather than a number: within ``equator`` degrees of the equator,
    at the poles, and where a node has no neighbour.

    References:
        | Atmospheric and Oceanic Fluid Dynamics (Vallis, 2017)
        | https://doi.org/10.1017/9781107588417

    Arguments:
        grid: The grid, whose last axes are ``lat`` and ``lon``.
        height: The height :math:`\eta`, in metres: the velocity of an anomaly is an anomaly.
        equator: The latitude, in degrees, under which the velocity is NaN.

    Raises:
        InputError: If the grid has no two latitudes and longitudes.

    Example:
        >>> grid = Grid(lat=[0.0, 30.0, 31.0], lon=[0.0, 1.0])
        >>> u, v = geostrophic_currents(grid, -0.1 * grid.points.axis("lat"))
        >>> bool((u[2:] > 0).all()), v[2:].abs().max().item(), bool(u[:2].isnan().all())
        (True, 0.0, True)
    """
    if grid.dims[-2:] != ("lat", "lon") or min(grid.shape[-2:]) < 2:
        where, got = call("geostrophic_currents", grid=grid), f"{grid.dims} {grid.shape}"
        raise refuse(where, "two latitudes and longitudes or more", got, "Leave currents out")
    field = grid.unflatten(height.detach()).numpy()
    lat, lon = (np.deg2rad(grid.axes[k].numpy()) for k in ("lat", "lon"))
    cosine = np.where(np.cos(lat) > 1e-6, np.cos(lat), np.nan)[:, None]
    north = _slope(field.swapaxes(-1, -2), EARTH_RADIUS * lat).swapaxes(-1, -2)
    east = _around(field, lon) / (EARTH_RADIUS * cosine)
    balanced = np.abs(lat) >= np.deg2rad(equator) - 1e-12
    f = 2 * ROTATION * np.where(balanced, np.sin(lat), np.nan)[:, None]
    u, v = (torch.as_tensor(x) for x in (-GRAVITY / f * north, GRAVITY / f * east))
    return grid.flatten(u), grid.flatten(v)


def _around(field: np.ndarray, lon: np.ndarray) -> np.ndarray:
    r"""Returns the slope along longitudes, across the seam where they go round the globe."""
    turn = 2 * np.pi
    if lon[0] + turn - lon[-1] > 1.5 * np.diff(lon).max():
        return _slope(field, lon)
    wide = np.concatenate([field[..., -1:], field, field[..., :1]], axis=-1)
    return _slope(wide, np.concatenate([[lon[-1] - turn], lon, [lon[0] + turn]]))[..., 1:-1]


def _slope(field: np.ndarray, x: np.ndarray) -> np.ndarray:
    r"""Returns the derivative along the last axis, one-sided next to NaN and at the ends."""
    gap, none = np.diff(x), np.full_like(field[..., :1], np.nan)
    each = np.diff(field, axis=-1) / gap
    ahead = np.concatenate([each, none], axis=-1)
    behind = np.concatenate([none, each], axis=-1)
    after, before = np.append(gap, gap[-1]), np.append(gap[0], gap)
    both = (ahead * before + behind * after) / (before + after)
    return np.where(np.isnan(ahead), behind, np.where(np.isnan(behind), ahead, both))
