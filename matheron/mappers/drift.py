r"""How fast structures of the sea surface move, as a quasi-geostrophic model says."""

from __future__ import annotations

__all__ = ["drift"]

import math
import torch
import torch.nn.functional as F

from jaxtyping import Float
from torch import Tensor

from ..domain import Grid
from ..dynamics import OneLayerQG

A_DAY = 86400.0
LEAD = 0.25
"""The days that the model runs for."""
COURANT = 0.6
"""The most of a cell that the fastest water crosses in a step."""
WIDTH = 60e3
"""The std of the window over which structures move together, in metres."""
STILL = 0.05
"""The squared slope, over its mean, at which the drift is half of what the slopes tell."""


def drift(grid: Grid, heights: Float[Tensor, " n"], speed: float = 2.7) -> Float[Tensor, "n 2"]:
    r"""Returns the velocity, north and east, that structures of the sea surface move with.

    It is not that of the water, which flows along them. The one-layer model tells the tendency
    :math:`\dot \eta` of each height; the drift :math:`c` is the smooth field that carries it
    best, by least squares in a Gaussian window :math:`w` about each node:

    .. math:: \min_c \int w \, (\dot \eta + c \cdot \nabla \eta)^2 + \epsilon |c|^2

    References:
        | An iterative image registration technique with an application to stereo vision
          (Lucas and Kanade, 1981)
        | Dynamic interpolation of sea surface height and potential applications for future
          high-resolution altimetry mapping (Ubelmann, Klein and Fu, 2015)
        | https://doi.org/10.1175/JTECH-D-14-00152.1

    Arguments:
        grid: The grid, of time, latitude and longitude, with even steps in space.
        heights: The heights, in metres, the mean included.
        speed: The speed of long internal waves, in metres per second.

    Returns:
        The drift at the nodes, in metres per day.

    Example:
        >>> lat, lon = torch.linspace(33, 43, 41).double(), torch.linspace(0, 10, 41).double()
        >>> grid = Grid(time=[0.0], lat=lat, lon=lon, metric="sphere")
        >>> y, x = (grid.points.axis(k) for k in ("lat", "lon"))
        >>> eddy = 0.01 * torch.exp(-((y - 38) ** 2 + (0.8 * (x - 5)) ** 2) / 0.5)
        >>> c = drift(grid, eddy).reshape(41, 41, 2)[20, 20]  # to the west, as Rossby waves do
        >>> bool(-5000 < c[1] < -500), bool(abs(c[0]) < 500)
        (True, True)
    """
    shape = grid.shape
    eta = grid.unflatten(heights).reshape(shape)
    land = eta.isnan().any(dim=0)
    eta = torch.where(land, eta.nanmean(), eta)
    model = OneLayerQG.on_sphere(grid.axes["lat"], grid.axes["lon"], land, speed)
    u, v = model.velocity(model.enter(eta))
    fastest = (u.abs() + v.abs()).max().item() + 0.1
    cell = min(model.width.min().item(), model.height)
    steps = math.ceil(LEAD * A_DAY * fastest / (COURANT * cell))
    model.dt = LEAD * A_DAY / steps
    rate = (model(eta, steps) - eta) / LEAD
    north, east = _slopes(model, eta)
    c = _flow(model, rate, north, east)
    flat = c.reshape(-1, 2)
    return flat if grid.mask is None else flat[grid.mask.flatten()]


def _slopes(model: OneLayerQG, eta: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns slopes to the north and to the east; none next to land and at the border."""
    free = F.pad(~model.frozen, (1, 1, 1, 1))
    inside = (free[2:, 1:-1] & free[:-2, 1:-1] & free[1:-1, 2:] & free[1:-1, :-2]).to(eta)
    north = F.pad((eta[:, 2:] - eta[:, :-2]) / (2 * model.height), (0, 0, 1, 1))
    east = F.pad((eta[..., 2:] - eta[..., :-2]), (1, 1)) / (2 * model.width)
    return north * inside, east * inside


def _flow(
    model: OneLayerQG, rate: Tensor, north: Tensor, east: Tensor
) -> Float[Tensor, "t y x 2"]:
    r"""Returns the smooth field that carries slopes at a rate."""
    terms = torch.stack([north * north, north * east, east * east, -rate * north, -rate * east])
    a, b, d, p, q = _blurred(terms, model)
    ridge = STILL * (a + d).mean(dim=(-2, -1), keepdim=True)
    a, d = a + ridge, d + ridge
    det = (a * d - b * b).clamp(min=torch.finfo(a.dtype).tiny)
    return torch.stack([(d * p - b * q) / det, (a * q - b * p) / det], dim=-1)


def _blurred(x: Float[Tensor, "k t y x"], model: OneLayerQG) -> Float[Tensor, "k t y x"]:
    for axis, cell in ((-2, model.height), (-1, model.width.mean().item())):
        n = x.shape[axis]
        away = torch.arange(n, dtype=x.dtype)
        w = torch.exp(-((away[:, None] - away) * cell / WIDTH).square() / 2)
        x = (x.transpose(axis, -1) @ (w / w.sum(dim=1, keepdim=True)).mT).transpose(axis, -1)
    return x
