r"""A sea that a one-layer model runs in: its grid, its first guess, its border and its data."""

from __future__ import annotations

__all__ = ["Basin", "Windows"]

import copy
import math
import torch

from dataclasses import dataclass, replace
from functools import cached_property
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from .problem import Problem, Say, superobs
from .tuning import FEWEST, Smooth, noisy, parts, prepared
from ..domain import Grid, Points
from ..dynamics import OneLayerQG
from ..observations import LinearObservation
from ..posterior import Estimator
from ..priors import GaussianProcess
from ..priors.wave_packets import WavePackets
from ..solvers.local import LocalKriging

A_DAY = 86400.0
QUARTERS = 4
"""The states that are kept in a day."""
FIT_SPACING = 0.15
"""The width of the cells that data of a fit are averaged over, in degrees."""
REACH = 2.0
"""The half-width of the windows of the first guess, over its timescale."""
WAVELENGTHS = (100e3, 900e3)
"""The wavelengths of the packets, in metres."""
LOST = 1e-3
"""The share of their variance that is left out."""
EDGE = 3
"""The cells from the border over which a run takes over from its first guess."""
COURANT = 0.8
"""The most of a cell that the fastest water crosses in a step."""


@dataclass(frozen=True)
class Windows:
    r"""Stretches of time of one length that overlap.

    Arguments:
        starts: The first quarter of a day of each, with shape :math:`(w)`.
        size: The number of quarters of a day from the first to the last state of each.
        total: The number of quarters of them all together.
    """

    starts: Int[Tensor, " w"]
    size: int
    total: int

    @classmethod
    def over(cls, total: int, size: int, stride: int) -> Windows:
        r"""Returns windows that cover all the quarters.

        Example:
            >>> Windows.over(28, 12, 8).starts.tolist()
            [0, 8, 16]
        """
        size = min(size, total)
        count = math.ceil((total - size) / stride) + 1
        starts = (torch.arange(count) * stride).clamp(max=total - size)
        return cls(starts, size, total)

    @property
    def index(self) -> Int[Tensor, "w k"]:
        r"""The quarters of each window."""
        return self.starts[:, None] + torch.arange(self.size + 1)

    @property
    def middle(self) -> Windows:
        r"""The window in the middle, alone."""
        k = len(self.starts) // 2
        return Windows(self.starts[k : k + 1], self.size, self.total)

    def blend(self, x: Float[Tensor, "*batch w k n"]) -> Float[Tensor, "*batch q n"]:
        r"""Returns the average of the windows, each with the more weight the farther its ends.

        Example:
            >>> windows = Windows.over(6, 4, 2)
            >>> windows.blend(torch.ones(2, 5, 1).double())[:, 0].tolist()
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        """
        place = torch.arange(self.size + 1, dtype=x.dtype)
        inside = torch.minimum(place, self.size - place) + 1e-3
        into = self.index.flatten()
        weight = inside.expand(len(self.starts), -1).flatten()
        total = x.new_zeros(self.total + 1).index_add(0, into, weight)
        share = (weight / total[into])[:, None]
        out = x.new_zeros(*x.shape[:-3], self.total + 1, x.shape[-1])
        return out.index_add(-2, into, x.flatten(-3, -2) * share)


class Basin:
    r"""The sea of a problem, on a grid of its own, even and coarse enough to be fast.

    The model has the box of the map, in cells of about ``spacing`` degrees. It starts ``before``
    the first day of the map and ends ``after`` the last one, where there are data. The first
    guess is the tuned optimal interpolation; it is also the border. Values are total heights:
    anomalies and the known mean, that of the first day of the map. Land is held as the border is;
    the biases of instruments, where they are fitted, are left to the first guess.

    Arguments:
        problem: The problem.
        say: Where to say what is found.
        spacing: The width of a cell, in degrees of latitude.
        speed: The speed of long internal waves, in metres per second.
        before: The days before the map.
        after: The days after it.
        dtype: The precision of the model.

    Raises:
        ValueError: If the grid of the map has no time, latitude and longitude.
    """

    def __init__(
        self,
        problem: Problem,
        say: Say,
        spacing: float = 0.2,
        speed: float = 2.7,
        before: float = 8.0,
        after: float = 3.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        _check_grid(problem.grid)
        self.problem, self.speed, self.dtype = problem, speed, dtype
        self.days = _days(problem, spacing, before, after)
        self.shape = self.days.shape[1:]
        self.n = math.prod(self.shape)
        self.total = QUARTERS * (self.days.shape[0] - 1)
        t0 = self.days.axes["time"][0].item()
        quarters = t0 + torch.arange(self.total + 1, dtype=torch.float64) / QUARTERS
        self.grid = replace_time(self.days, quarters)
        self._set_first_guess(say, spacing)

    def _set_first_guess(self, say: Say, spacing: float) -> None:
        near = _inside(self.problem, self.days)
        law = Smooth(near, 2.5, 2.5)
        start = prepared(near, law, say, FIT_SPACING)
        self._like, self._chosen = start.seen, start.chosen
        self.prior = GaussianProcess(law.chosen(start.chosen), self.days)
        used = superobs(start.data, 1.5 * max(spacing, FEWEST))
        self._set_data(replace(used, grid=self.days, known=None, values=used.anomalies))
        say(f"model of {self.shape[0]} x {self.shape[1]} nodes, {self.total // QUARTERS} days")

    def _set_data(self, data: Problem) -> None:
        self.data = data
        self.observation, self.y = noisy(data, self._like, self._chosen)
        self.first = _local(self.prior, self.observation)

    def take(self, kept: Bool[Tensor, " m"]) -> Basin:
        r"""Returns the sea with some of its data, in their order of the table."""
        new = copy.copy(self)
        for name in ("corners", "at_data", "first_guess"):
            new.__dict__.pop(name, None)
        new._set_data(self.data.take(kept))
        return new

    @cached_property
    def mean(self) -> Float[Tensor, " n"]:
        r"""The known mean at the nodes of the model: that of the first day of the map."""
        problem = self.problem
        points = self.days.points[: self.n]
        coords = points.coords.clone()
        coords[:, 0] = problem.grid.axes["time"][0]
        full = replace_time(problem.grid, problem.grid.axes["time"])
        shift = problem.grid.unflatten(problem.shift).nan_to_num(0.0).flatten()
        nodes, weights = full.interpolation(_points(coords, problem.grid))
        return (shift[nodes] * weights).sum(dim=-1)

    @cached_property
    def land(self) -> Bool[Tensor, "ny nx"]:
        r"""The nodes of the model that are nearest to land."""
        mask = self.problem.grid.mask
        if mask is None:
            return torch.zeros(self.shape, dtype=torch.bool)
        mask = mask.reshape(self.problem.grid.shape)[0]
        near = [
            (self.days.axes[k][:, None] - self.problem.grid.axes[k]).abs().argmin(dim=1)
            for k in ("lat", "lon")
        ]
        return ~mask[near[0]][:, near[1]]

    def model(self, fastest: float, way: int = 1, speed: float | None = None) -> OneLayerQG:
        r"""Returns the model with steps as short as the fastest water asks for."""
        lat, lon = self.days.axes["lat"], self.days.axes["lon"]
        model = OneLayerQG.on_sphere(lat, lon, self.land, speed or self.speed)
        cell = min(model.width.min().item(), model.height)
        model.dt = way * A_DAY / QUARTERS / steps_of(fastest, cell)
        return model.to(self.dtype)

    def fastest(self, x: Float[Tensor, "*batch n"]) -> float:
        r"""Returns the largest speed of the flow of some heights, in metres per second."""
        model = OneLayerQG.on_sphere(self.days.axes["lat"], self.days.axes["lon"], self.land)
        u, v = model.velocity(model.enter(x.double().unflatten(-1, self.shape)))
        return (u.abs() + v.abs()).max().item()

    def quarters(self, daily: Float[Tensor, "*batch d n"]) -> Float[Tensor, "*batch q n"]:
        r"""Returns heights every quarter of a day, from anomalies of every day."""
        w = torch.arange(QUARTERS, dtype=daily.dtype)[:, None] / QUARTERS
        a, b = daily[..., :-1, None, :], daily[..., 1:, None, :]
        between = ((1 - w) * a + w * b).flatten(-3, -2)
        return torch.cat([between, daily[..., -1:, :]], dim=-2) + self.mean

    def guess(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch q n"]:
        r"""Returns the heights of the first guess, every quarter of a day."""
        x = self.first.estimate(y)
        return self.quarters(x.unflatten(-1, (-1, self.n)))

    @cached_property
    def ramp(self) -> Float[Tensor, " n"]:
        r"""How far every node is from the border: one from ``EDGE`` cells on."""
        steps = [torch.arange(size, dtype=torch.float64) for size in self.shape]
        y, x = (torch.minimum(k, len(k) - 1 - k) for k in steps)
        return (torch.minimum(y[:, None], x) / EDGE).clamp(max=1.0).flatten()

    @cached_property
    def first_guess(self) -> Float[Tensor, "q n"]:
        r"""The heights of the first guess of the data there are."""
        return self.guess(self.y)

    @cached_property
    def corners(self) -> tuple[Int[Tensor, "m k"], Float[Tensor, "m k"]]:
        r"""The nodes about each datum, among those of all quarters, and their weights."""
        return self.grid.interpolation(self.observation.points)

    def seen(self, x: Float[Tensor, "*batch q n"]) -> Float[Tensor, "*batch m"]:
        r"""Returns the anomalies of heights at the data."""
        nodes, weights = self.corners
        anomalies = (x - self.mean).flatten(-2)
        return (anomalies[..., nodes] * weights).sum(dim=-1)

    @cached_property
    def at_data(self) -> Float[Tensor, " m"]:
        r"""The known mean at the data, from that at the nodes."""
        nodes, weights = self.corners
        return (self.mean[nodes % self.n] * weights).sum(dim=-1)

    def onto(self, x: Float[Tensor, "*batch q n"]) -> Float[Tensor, "*batch p"]:
        r"""Returns the anomalies of heights at the nodes of the map."""
        nodes, weights = self.grid.interpolation(self.problem.grid.points)
        anomalies = (x - self.mean).flatten(-2)
        return (anomalies[..., nodes] * weights).sum(dim=-1)

    @cached_property
    def roots(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "n n"]]:
        r"""Square roots of the correlation of the first guess, in time and in space."""
        day = self.days.points[:: self.n]
        place = self.days.points[: self.n]
        variance = self.prior.variance(day[:1])
        time, space = (self.prior.covariance(p, p) / variance for p in (day, place))
        return _root(time), _root(space)

    @cached_property
    def packets(self) -> Float[Tensor, "n r"]:
        r"""A square root of the covariance of wave packets in space, of variance one.

        Its columns are eigenvectors: those that hold all but a thousandth of the variance.
        """
        axes = self.days.axes
        space = Grid(lat=axes["lat"], lon=axes["lon"], metric="sphere")
        prior = WavePackets(space, 1.0, WAVELENGTHS)
        values, vectors = torch.linalg.eigh(prior.covariance(space.points, space.points).detach())
        share = values.clamp(min=0).cumsum(0) / values.clamp(min=0).sum()
        kept = share > LOST
        return vectors[:, kept] * values[kept].sqrt()

    def draw(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size d n"]:
        r"""Draws anomalies of the prior, of every day, with the variance one."""
        time, space = self.roots
        shape = (size, len(time), self.n)
        z = torch.randn(shape, generator=generator, dtype=torch.float64)
        return time @ z @ space.mT

    def simulate(
        self, size: int, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "size q n"], Float[Tensor, "size m"]]:
        r"""Draws heights of the first guess given the data, and data as their members see them.

        Members follow Matheron's rule: each is kriging from data less an error of its own.
        """
        x = self.prior.variance(self.days.points[:1]).sqrt() * self.draw(size, generator)
        error = self.observation.noise((size,), generator)
        y = self.y - error
        seen = self.seen(self.quarters(x))
        found = self.first.estimate(y - seen).unflatten(-1, (-1, self.n)) + x
        return self.quarters(found), y


def _root(covariance: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def steps_of(fastest: float, cell: float) -> int:
    r"""Returns the steps of a quarter of a day for a speed in cells of a width.

    Example:
        >>> steps_of(1.0, 2e4)
        2
    """
    return max(1, math.ceil(A_DAY / QUARTERS * fastest / (COURANT * cell)))


def replace_time(grid: Grid, time: Float[Tensor, " t"]) -> Grid:
    r"""Returns the grid at other times, without land."""
    lat, lon = grid.axes["lat"], grid.axes["lon"]
    return Grid(time=time, lat=lat, lon=lon, epoch=grid.epoch, metric=grid.metric)


def _points(coords: Tensor, like: Grid) -> Points:
    return Points(coords, like.dims, metric=like.metric, epoch=like.epoch)


def _check_grid(grid: Grid) -> None:
    if grid.dims != ("time", "lat", "lon") or grid.metric != "sphere":
        msg = (
            f"Basin(problem=...): expected a grid of time, lat and lon on the sphere, got "
            f"{grid.dims} on the {grid.metric}. Use another method elsewhere."
        )
        raise ValueError(msg)


def _even(axis: Tensor, spacing: float) -> Tensor:
    cells = max(4, round((axis[-1] - axis[0]).item() / spacing))
    return torch.linspace(axis[0].item(), axis[-1].item(), cells + 1, dtype=torch.float64)


def _days(problem: Problem, spacing: float, before: float, after: float) -> Grid:
    grid = problem.grid
    times, t = grid.axes["time"], problem.points.since(grid.epoch).axis("time")
    first, last = times[0].item(), times[-1].item()
    if len(t):
        first = min(first, max(first - before, t.min().item()))
        last = max(last, min(last + after, t.max().item()))
    days = torch.arange(max(1, math.ceil(last - first)) + 1, dtype=torch.float64)
    lat, lon = (_even(grid.axes[k], spacing) for k in ("lat", "lon"))
    return Grid(time=first + days, lat=lat, lon=lon, metric="sphere", epoch=grid.epoch)


def _inside(problem: Problem, days: Grid) -> Problem:
    r"""Returns the problem with the data in the box and the days of the model."""
    points = problem.points.since(days.epoch)
    kept = torch.ones(len(points), dtype=torch.bool)
    for name in ("time", "lat"):
        v, axis = points.axis(name), days.axes[name]
        kept &= (v >= axis[0]) & (v <= axis[-1])
    axis = days.axes["lon"]
    east = torch.remainder(points.axis("lon") - axis[0], 360.0)
    kept &= east <= axis[-1] - axis[0]
    if not kept.any():
        msg = (
            f"Basin(problem=...): expected data in the box and the days of the map, got none of "
            f"{len(points)} there. Check longitudes and dates."
        )
        raise ValueError(msg)
    return problem.take(kept)


def _local(prior: GaussianProcess, observation: LinearObservation) -> Estimator:
    duration = parts(prior.kernel)[0].lengthscale.max().item()
    conditional = LocalKriging(window=max(REACH * duration, 2.0))(prior, observation)
    assert isinstance(conditional, Estimator)
    return conditional
