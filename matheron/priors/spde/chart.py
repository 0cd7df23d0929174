r"""A flat map of part of the sphere, and where the land is on it."""

from __future__ import annotations

__all__ = ["Chart", "on_land"]

import numpy as np
import torch

from collections.abc import Sequence
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

from ...domain import EARTH_RADIUS, Grid, Points

DIAMETER = 2 * EARTH_RADIUS


@dataclass(frozen=True)
class Chart:
    r"""The stereographic map about a centre, which keeps angles; the identity on the plane.

    Arguments:
        dims: The names of the axes.
        center: The latitude and longitude of the centre, or ``None`` on the plane.

    Example:
        >>> sites = Points(lat=[10.0, 20.0], lon=[355.0, 10.0])
        >>> chart = Chart.of(sites)
        >>> chart.raise_back(chart.flatten(sites, 0.0)).axis("lat").round(decimals=9).tolist()
        [10.0, 20.0]
    """

    dims: tuple[str, ...]
    center: tuple[float, float] | None

    @classmethod
    def of(cls, points: Points) -> Chart:
        r"""Returns the map about the middle of some sites."""
        if len(points.dims) != 2 or "time" in points.dims:
            msg = (
                f"Mesh.around(points=...): expected two axes of space, got {points.dims}. "
                "Leave out time: pass e.g. Points(lat=..., lon=...)."
            )
            raise ValueError(msg)
        return cls(points.dims, points.center if points.metric == "sphere" else None)

    def flatten(self, points: Points, margin: float) -> np.ndarray:
        r"""Returns the sites on the map, checked to be within reach, with their margin."""
        if self.center is None:
            return points.coords.numpy()
        x = points.cartesian(self.center)
        up = x[:, 2]
        reach = torch.acos((1 + up.min() / EARTH_RADIUS).clamp(-1, 1)) * EARTH_RADIUS + margin
        if reach > EARTH_RADIUS * np.pi / 2:
            msg = (
                f"Mesh.around(points=...): expected sites and margin within a quarter turn of "
                f"their middle, got {reach / 1000:.0f} km. Use Mesh.sphere."
            )
            raise ValueError(msg)
        return (x[:, :2] * (DIAMETER / (DIAMETER + up))[:, None]).numpy()

    def raise_back(self, q: np.ndarray) -> Points:
        r"""Returns the sites of places on the map."""
        if self.center is None:
            return Points(torch.as_tensor(q), self.dims, metric="plane")
        lat0, lon0 = np.radians(self.center)
        square = (q**2).sum(axis=1) / DIAMETER**2
        north, east = (q / EARTH_RADIUS / (1 + square)[:, None]).T
        up = (1 - square) / (1 + square)
        height = np.sin(lat0) * up + np.cos(lat0) * north
        along = np.cos(lat0) * up - np.sin(lat0) * north
        lon = np.degrees(lon0 + np.arctan2(east, along))
        lon = (lon + 180.0) % 360.0 - 180.0
        return Points(lat=np.degrees(np.arcsin(np.clip(height, -1, 1))), lon=lon)


def on_land(
    land: Grid | Sequence[Float[Tensor, "k 2"]], nodes: Points, triangles: np.ndarray
) -> np.ndarray:
    r"""Returns which triangles have their centre on land.

    Arguments:
        land: A grid whose mask is False on land, or polygons.
        nodes: The nodes of the mesh.
        triangles: The nodes of each triangle.
    """
    x = nodes.coords.numpy()[triangles]
    if nodes.metric == "sphere":  # one branch for the corners of a triangle
        x[..., 1] = x[:, :1, 1] + (x[..., 1] - x[:, :1, 1] + 180.0) % 360.0 - 180.0
    centers = x.mean(axis=1)
    if isinstance(land, Grid):
        return _masked(land, nodes, centers)
    inside = np.zeros(len(centers), dtype=bool)
    for polygon in land:
        ring = polygon.numpy()
        sites = centers.copy()
        if nodes.metric == "sphere":
            middle = ring[:, 1].mean()
            sites[:, 1] = middle + (sites[:, 1] - middle + 180.0) % 360.0 - 180.0
        inside ^= _within(ring, sites)
    return inside


def _masked(grid: Grid, nodes: Points, centers: np.ndarray) -> np.ndarray:
    if grid.dims != nodes.dims:
        msg = (
            f"Mesh.around(land=...): expected a grid with dims {nodes.dims}, got {grid.dims}. "
            "Leave out time, and name the axes alike."
        )
        raise ValueError(msg)
    if grid.mask is None:
        return np.zeros(len(centers), dtype=bool)
    known, index = np.ones(len(centers), dtype=bool), []
    for k, (name, axis) in enumerate(grid.axes.items()):
        a, s = axis.numpy(), centers[:, k]
        if name == "lon" and grid.metric == "sphere":
            s = a.mean() + (s - a.mean() + 180.0) % 360.0 - 180.0
        half = np.diff(a) / 2 if len(a) > 1 else np.array([np.inf])
        index.append(np.searchsorted(a[:-1] + half[: len(a) - 1], s))
        known &= (s >= a[0] - half[0]) & (s <= a[-1] + half[-1])
    sea = grid.mask.numpy().reshape(grid.shape)[tuple(index)]
    return known & ~sea


def _within(ring: np.ndarray, sites: np.ndarray) -> np.ndarray:
    r"""Returns which sites are within a polygon, by the number of sides to their right."""
    inside = np.zeros(len(sites), dtype=bool)
    for (ya, xa), (yb, xb) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        crosses = (ya > sites[:, 0]) != (yb > sites[:, 0])
        if ya != yb:
            at = xa + (sites[:, 0] - ya) / (yb - ya) * (xb - xa)
            inside ^= crosses & (sites[:, 1] < at)
    return inside
