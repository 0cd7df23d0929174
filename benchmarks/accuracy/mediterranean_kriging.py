"""Exact kriging of the tracks over the Mediterranean: the first guess of learned solvers.

    python mediterranean_kriging.py

As in ``mediterranean.py``, but from all data at once instead of near neighbours, and of the field
alone: what one pass sees and no other is not on the map. The law separates in space and time, so
that a map of all days is one product of matrices.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
import torch

from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import xarray as xr

from harness import finish, real_data
from mediterranean_spde import scores, tracks
from scipy.ndimage import distance_transform_edt

import matheron as mt

from matheron.data import Observations
from matheron.domain import Grid, Points
from matheron.selection import choose

EVERY = 2
"""One node of the maps in so many is kept: a step of 1/4 degree."""
DAYS, PAD = 21, 5
"""The days that are mapped, and how many the grid has before and after them."""
ROWS = 500
"""The rows of a covariance that are made at once."""


class Sea:
    """The maps of 2005 at the nodes of a lattice of the sea, the cells of the tracks included."""

    def __init__(self, points: Points) -> None:
        with xr.open_dataset(real_data("mediterranean", "duacs_l4_adt_2005-04_2005-05.nc")) as ds:
            adt = ds["adt"][:, ::EVERY, ::EVERY].load()
        lat, lon = (torch.as_tensor(adt[k].values).double() for k in ("latitude", "longitude"))
        wet = torch.as_tensor(np.isfinite(adt.values).all(axis=0))
        plane = Grid(lat=lat, lon=lon, metric="sphere")
        nodes, weights = plane.interpolation(
            Points(points.coords[:, 1:], plane.dims, metric="sphere")
        )
        wet.view(-1)[nodes[weights > 0]] = True
        self.mask = wet
        days = torch.arange(-PAD, DAYS + PAD, dtype=torch.float64)
        every = wet.expand(len(days), -1, -1).clone()
        self.grid = Grid(
            time=days, lat=lat, lon=lon, mask=every, metric="sphere", epoch=points.epoch
        )
        day = {"time": torch.zeros(1), "lat": lat, "lon": lon}
        self.plane = Grid(**day, mask=wet[None].clone(), metric="sphere", epoch=points.epoch)
        dry = ~np.isfinite(adt.values).all(axis=0)
        near = distance_transform_edt(dry, return_distances=False, return_indices=True)
        filled = adt.values[:, near[0], near[1]]
        maps = torch.as_tensor(filled).double()[:, wet]
        self.maps = maps - maps.mean()
        self.corners = self.grid.interpolation(points)

    @property
    def shape(self) -> tuple[int, int]:
        """The days and the nodes of the sea."""
        return self.grid.shape[0], int(self.mask.sum())

    def truth(self, shift: int) -> torch.Tensor:
        """Returns the maps of the days from a shift on; those that are not there never weigh."""
        place = (torch.arange(-PAD, DAYS + PAD) + shift).clamp(0, len(self.maps) - 1)
        return self.maps[place].flatten()

    def at_tracks(self, x: torch.Tensor) -> torch.Tensor:
        """Returns a field at the places of the tracks."""
        nodes, weights = self.corners
        return (x[..., nodes] * weights).sum(dim=-1)


class Law:
    """The covariance chosen on the missions that are kept, at all data and nodes."""

    @torch.no_grad()
    def __init__(self, data: Observations, kept: torch.Tensor, sea: Sea) -> None:
        codes = data.groups.codes
        choice = choose(
            data.points[~kept], data.points[kept], data.values[kept], groups=codes[kept]
        )
        assert choice.structure == "two separable scales + errors along the track"
        values = data.values - data.values[kept].mean()
        self.data, self.sea = dataclasses.replace(data, values=values), sea
        prior = choice.prior
        *field, passing = prior.kernel.parts
        s, x = prior.coordinates(data.points), prior.coordinates(sea.plane.points)
        days = sea.grid.axes["time"]
        moments = torch.zeros(len(days), 3, dtype=torch.float64)
        moments[:, 0], moments[:, 1:] = days, sea.plane.points.coords[0, 1:]
        t = prior.coordinates(
            Points(moments, data.points.dims, metric="sphere", epoch=sea.grid.epoch)
        )
        self.covariance = _rows(s, lambda i: sum(part(s[i], s) for part in field))
        self.over_time = [part.parts[0](t, s) for part in field]
        self.over_space = [part.parts[1](x, s).float() for part in field]
        self.roots = [(part.parts[0](t, t), part.parts[1](x, x)) for part in field]
        self.roots = [tuple(_root(K) for K in both) for both in self.roots]
        self.design = prior.trend.design(data.points)
        self.design_nodes = prior.trend.design(sea.grid.points)
        seen = choice.observation
        self.bias = seen.bias_variance.mean().item()
        self.white = seen.noise_variance.mean().item()
        self.own = passing.diagonal(s[:1]).item()
        self.passing, self.sites = passing, s
        self.length = passing.parts[1].lengthscale.max().item()

    @property
    def noise(self) -> float:
        """The variance of a new datum about the field."""
        return self.bias + self.white + self.own

    def errors(self, size: int, generator: torch.Generator) -> torch.Tensor:
        """Draws the errors of all data."""
        data, std = self.data, math.sqrt(self.own)
        law = mt.AlongTrackError(
            data.points, data.points, data.passes, self.length, std, nu=math.inf
        )
        bias = torch.randn(size, 3, dtype=torch.float64, generator=generator)
        return law.sample_nodes(size, generator) + self.bias**0.5 * bias[:, data.groups.codes]

    def draws(self, size: int, generator: torch.Generator) -> torch.Tensor:
        """Draws fields at the nodes, without their trend."""
        total = torch.zeros(size, *self.sea.shape, dtype=torch.float64)
        for time_root, space_root in self.roots:
            z = torch.randn(size, *self.sea.shape, dtype=torch.float64, generator=generator)
            total += time_root @ (z @ space_root.mT)
        return total.flatten(1)


def _rows(sites: torch.Tensor, rows: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Returns a square matrix that is made of some rows at once, for less memory."""
    whole = torch.empty(len(sites), len(sites), dtype=torch.float64)
    for i in torch.arange(len(sites)).split(ROWS):
        whole[i] = rows(i)
    return whole


def _root(K: torch.Tensor) -> torch.Tensor:
    """Returns a root of a covariance that is nearly singular: for draws, 1e-8 is nothing."""
    return torch.linalg.cholesky(K + 1e-8 * K.diagonal().mean() * torch.eye(len(K)))


class Interpolation:
    """Kriging from some of the data, the trend unknown."""

    @torch.no_grad()
    def __init__(self, law: Law, seen: torch.Tensor) -> None:
        self.law, self.i = law, seen.nonzero()[:, 0]
        i, codes = self.i, law.data.groups.codes
        K = _rows(
            i,
            lambda k: (
                law.passing(law.sites[i[k]], law.sites[i])
                + law.covariance[i[k]][:, i]
                + law.bias * (codes[i[k], None] == codes[i])
            ),
        )
        K.diagonal().add_(law.white)
        self.L = torch.linalg.cholesky(K)
        self.F = torch.linalg.solve_triangular(self.L, law.design[i], upper=False)
        self.A = self.F.mT @ self.F

    def solve(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the weights of covariances, and of the trend, for sets of all data in rows."""
        z = torch.linalg.solve_triangular(self.L, y[:, self.i].mT, upper=False)
        beta = torch.linalg.solve(self.A, self.F.mT @ z)
        return torch.linalg.solve_triangular(self.L.mT, z - self.F @ beta, upper=True), beta

    def maps(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the map at the nodes, and at the places of all data."""
        (w, beta), law = self.solve(y), self.law
        nodes = law.design_nodes @ beta
        for t, S in zip(law.over_time, law.over_space, strict=True):
            weighed = (t[:, self.i, None] * w).transpose(0, 1).flatten(1).float()
            found = (S[:, self.i] @ weighed).unflatten(-1, (len(t), -1))
            nodes += found.transpose(0, 1).flatten(0, 1)
        return nodes.mT, (law.covariance[:, self.i] @ w + law.design @ beta).mT

    def variance(self, j: torch.Tensor) -> torch.Tensor:
        """Returns the variance of the field at some data."""
        law = self.law
        v = torch.linalg.solve_triangular(self.L, law.covariance[self.i][:, j], upper=False)
        trend = law.design[j].mT - self.F.mT @ v
        own = (trend * torch.linalg.solve(self.A, trend)).sum(dim=0)
        return law.covariance.diagonal()[j] - v.square().sum(dim=0) + own


def main() -> None:
    """Leaves each mission out in turn."""
    data, rows = tracks(), []
    sea = Sea(data.points)
    for code, mission in enumerate(data.groups.labels):
        start, out = time.perf_counter(), data.groups.codes == code
        law = Law(data, ~out, sea)
        made, j = Interpolation(law, ~out), out.nonzero()[:, 0]
        mean = made.maps(law.data.values[None])[1][0, j]
        std = (made.variance(j) + law.noise).sqrt()
        told = {"mission": mission, **scores(mean, std, law.data.values[j])}
        rows.append(told | {"seconds": time.perf_counter() - start})
    finish("Mediterranean, exact kriging", "mediterranean_kriging", rows)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    main()
