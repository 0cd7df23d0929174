r"""Pairs of data by distance: found by a tree, by chunks, drawn at random where too many."""

from __future__ import annotations

__all__ = ["Lags", "Sector", "pairs_of"]

import itertools
import math
import numpy as np
import torch

from collections.abc import Iterator
from dataclasses import dataclass
from scipy.spatial import cKDTree

from ..domain import EARTH_RADIUS, Points

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Sector:
    """A direction, in degrees, its half-angle, and the width of its band."""

    direction: int | float
    tolerance: int | float
    bandwidth: int | float


@dataclass(frozen=True)
class Lags:
    """Distances and directions between data: along some axes, within a reach on the others."""

    along: np.ndarray
    others: np.ndarray
    within: int | float
    points: Points
    unit: str

    @classmethod
    def of(cls, points: Points, along: str | None, within: int | float | None) -> Lags:
        along = along or ("time" if points.dims == ("time",) else "space")
        _check_along(points, along, within)
        x = points.cartesian().numpy(force=True)
        split = 1 if "time" in points.dims else 0
        time, space = x[:, :split], x[:, split:]
        chosen, others = (space, time) if along == "space" else (time, space)
        if others.shape[1] and within is None:
            _no_reach(points.dims, along)
        return cls(chosen, others, within or 1.0, points, _unit(points, along))

    def check_direction(self) -> None:
        axes = [k for k in self.points.dims if k != "time"]
        if len(axes) != 2 or self.unit == "days":
            _no_plane(self.points, "time" if self.unit == "days" else "space")

    @property
    def diagonal(self) -> float:
        return float(np.linalg.norm(np.ptp(self.along, axis=0)))

    def stretched(self, reach: float) -> np.ndarray:
        """Coordinates in which one radius serves the lag and the separation on other axes."""
        return np.concatenate([self.along, self.others * (reach / self.within)], axis=1)

    @property
    def norm(self) -> float:
        return np.inf if self.others.shape[1] else 2.0

    def distances(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        d = np.linalg.norm(self.along[i] - self.along[j], axis=1)
        if self.others.shape[1]:
            d[np.linalg.norm(self.others[i] - self.others[j], axis=1) > self.within] = np.inf
        return d

    def aligned(self, i: np.ndarray, j: np.ndarray, sector: Sector) -> np.ndarray:
        """Which pairs lie along a direction, up or down; coincident sites lie along all."""
        first, last = self.displacement(i, j)
        length = np.hypot(first, last)
        offset = np.abs(np.sin(np.arctan2(first, last) - math.radians(sector.direction)))
        keep = offset <= math.sin(math.radians(min(sector.tolerance, 90.0))) + 1e-12
        return (keep & (length * offset <= sector.bandwidth)) | (length == 0)

    def displacement(self, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The displacement along the last two axes: to the north and to the east on the sphere."""
        plane = self.points.coords[:, -2:].numpy(force=True)
        if self.points.metric == "plane":
            return plane[j, 0] - plane[i, 0], plane[j, 1] - plane[i, 1]
        lat, lon = np.radians(plane).T
        # the shortest way round the Earth
        dlon = (lon[j] - lon[i] + np.pi) % (2 * np.pi) - np.pi
        east = EARTH_RADIUS * np.cos((lat[i] + lat[j]) / 2) * dlon
        return EARTH_RADIUS * (lat[j] - lat[i]), east


def _unit(points: Points, along: str) -> str:
    if along == "time":
        return "days"
    return "m" if points.metric == "sphere" else ""


def _check_along(points: Points, along: str, within: int | float | None) -> None:
    known = ["space"] * (points.dims != ("time",)) + ["time"] * ("time" in points.dims)
    if along not in known:
        msg = f"variogram(along=...): expected one of {known}, got {along!r}. Choose one."
        raise ValueError(msg)
    if within is not None and (len(known) < 2 or not within > 0):
        msg = (
            f"variogram(within=...): expected a positive separation for points with space and "
            f"time, got {within} for axes {points.dims}. Leave it out, or increase it."
        )
        raise ValueError(msg)


def _no_plane(points: Points, along: str) -> None:
    msg = (
        f"variogram(direction=...): expected two space axes to turn in, got a lag along {along} "
        f"for axes {points.dims}. Leave direction out."
    )
    raise ValueError(msg)


def _no_reach(dims: tuple[str, ...], along: str) -> None:
    cure = "within=1.0 (days)" if along == "space" else "within=10e3 (metres on the sphere)"
    msg = (
        f"variogram(within=...): expected how far apart pairs may be on the axes other than "
        f"{along}, got None for axes {dims}. Pass e.g. {cure}."
    )
    raise ValueError(msg)


def pairs_of(
    lags: Lags, edges: np.ndarray, size: int, generator: torch.Generator | None, chunk: int
) -> Iterator[Pairs]:
    """Yields pairs by chunks: at each scale, all those of a random part of the data."""
    for low, high, share, partners in _scales(lags, edges, size, generator):
        chosen = _some(len(lags.along), share, generator)
        x = lags.stretched(high)[chosen]
        tree = cKDTree(x)
        for part in np.array_split(np.arange(share), math.ceil(share * partners / chunk)):
            near = cKDTree(x[part]).sparse_distance_matrix(
                tree, high * (1 + 1e-12), p=lags.norm, output_type="ndarray"
            )
            i, j = part[near["i"]], near["j"]
            once = i < j
            yield _between(lags, chosen[i[once]], chosen[j[once]], low, high)


def _between(lags: Lags, i: np.ndarray, j: np.ndarray, low: float, high: float) -> Pairs:
    distance = lags.distances(i, j)
    keep = (distance >= low) & (distance < high)
    return i[keep], j[keep], distance[keep]


def _some(n: int, share: int, generator: torch.Generator | None) -> np.ndarray:
    return np.arange(n) if share == n else torch.randperm(n, generator=generator)[:share].numpy()


def _scales(
    lags: Lags, edges: np.ndarray, size: int, generator: torch.Generator | None
) -> Iterator[tuple[float, float, int, int]]:
    """Yields ranges of lags, how many data to keep for each, and the partners of a datum.

    A part of the data, rather than all partners of some: pairs that share no datum tell more.
    """
    n = len(lags.along)
    if n * (n - 1) // 2 <= size:
        yield edges[0], edges[-1], n, n
        return
    probes = _some(n, min(n, 64), generator)
    partners = np.array([_partners(lags, probes, reach) for reach in edges[1:]])
    excess = np.maximum(partners.mean(axis=1) * n / (2 * size), 1.0)
    halvings = np.ceil(np.log2(excess)).tolist()
    for halved, group in itertools.groupby(range(len(halvings)), key=halvings.__getitem__):
        bins = list(group)
        share = max(2, round(n / 2 ** (halved / 2)))
        most = math.ceil(partners[bins[-1]].max() * share / n)
        yield edges[bins[0]], edges[bins[-1] + 1], share, most


def _partners(lags: Lags, probes: np.ndarray, reach: float) -> np.ndarray:
    x = lags.stretched(reach)
    return cKDTree(x).query_ball_point(x[probes], reach, p=lags.norm, return_length=True)
