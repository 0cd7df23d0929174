r"""What a mapper is given, and what it gives back."""

from __future__ import annotations

__all__ = ["Mapped", "Mapper", "Problem", "Say", "superobs", "thinned"]

import math
import torch

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from jaxtyping import Float, Int
from torch import Generator, Tensor
from typing import Any

from ..data.beside import Gridded
from ..domain import Grid, Points, nearest_turn
from ..posterior import Posterior

Say = Callable[[str], None]


@dataclass(frozen=True)
class Problem:
    r"""Data, and where a map of them is wanted.

    Arguments:
        grid: The grid of the map, with time, latitude and longitude, on the sphere.
        points: Where and when the data are, with the axes of the grid.
        values: The data, with shape :math:`(m)`.
        noise_std: The std of their errors, one number or :math:`(m)`; learned if not given.
        passes: The pass that each datum belongs to, with shape :math:`(m)`.
        groups: The instrument of each datum, with shape :math:`(m)`.
        known: A known mean (an MDT, a climatology), at the data and at the nodes of the grid. It
            is taken off the data and added to the map, but by baselines that have none.
        blocks: The means of blocks of the files, for baselines that are defined on them: see
            :func:`matheron.mappers.coarsen`.
        seed: The seed of whatever a mapper draws to fit itself.
        beside: Other fields by name, for mappers that learned with them.

    Raises:
        ValueError: If shapes or axes do not agree, or values are not finite.

    Example:
        >>> grid = Grid(time=[0.0], lat=[0.0, 1.0], lon=[0.0, 1.0], metric="sphere")
        >>> points = Points(time=[0.0], lat=[0.5], lon=[0.5], metric="sphere")
        >>> len(Problem(grid, points, torch.zeros(1, dtype=torch.float64)))
        1
    """

    grid: Grid
    points: Points
    values: Float[Tensor, " m"]
    noise_std: float | Float[Tensor, " m"] | None = None
    passes: Int[Tensor, " m"] | None = None
    groups: Int[Tensor, " m"] | None = None
    known: tuple[Float[Tensor, " m"], Float[Tensor, " n"]] | None = None
    blocks: tuple[Points, Float[Tensor, " k"]] | None = None
    seed: int = 0
    beside: Mapping[str, Gridded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.points.dims != self.grid.dims or self.points.metric != self.grid.metric:
            msg = (
                f"Problem(points=...): expected axes {self.grid.dims} on the {self.grid.metric}, "
                f"got {self.points.dims} on the {self.points.metric}. Name them as the grid does."
            )
            raise ValueError(msg)
        labels = [v for v in (self.values, self.passes, self.groups) if v is not None]
        m = len(self.points)
        if any(v.shape != (m,) for v in labels) or not self.values.isfinite().all():
            bad = int((~self.values.isfinite()).sum())
            msg = (
                f"Problem(values=...): expected {m} finite values and as many labels, got shapes "
                f"{[tuple(v.shape) for v in labels]} with {bad} not finite. Drop missing data."
            )
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def anomalies(self) -> Float[Tensor, " m"]:
        r"""The data without the known mean."""
        return self.values if self.known is None else self.values - self.known[0]

    @property
    def shift(self) -> Float[Tensor, " n"]:
        r"""The known mean at the nodes of the grid."""
        zero = torch.zeros(len(self.grid), dtype=torch.float64)
        return zero if self.known is None else self.known[1]

    @property
    def noise(self) -> Float[Tensor, " m"] | None:
        r"""The std of the error of each datum, if it is known."""
        if self.noise_std is None:
            return None
        return torch.as_tensor(self.noise_std, dtype=torch.float64).expand(len(self))

    def take(self, kept: Tensor) -> Problem:
        r"""Returns the problem with some of the data."""
        index = torch.nonzero(kept)[:, 0] if kept.dtype == torch.bool else kept
        noise = self.noise_std
        return replace(
            self,
            points=self.points[index],
            values=self.values[index],
            noise_std=noise[index] if isinstance(noise, Tensor) and noise.ndim else noise,
            passes=None if self.passes is None else self.passes[index],
            groups=None if self.groups is None else self.groups[index],
            known=None if self.known is None else (self.known[0][index], self.known[1]),
        )

    def near(self, start: float, end: float) -> Problem:
        r"""Returns the problem with the data between two times, both included."""
        t = self.points.since(self.grid.epoch).axis("time")
        return self.take((t >= start) & (t <= end))


@dataclass(frozen=True)
class Mapped:
    r"""A map of a problem: mean, std and draws, at the nodes of its grid.

    Arguments:
        posterior: The posterior of the anomalies.
        shift: The known mean.
        info: What the mapper has to say of itself: parameters, sizes.
        unresolved: The std of the part of the field that the prior is too smooth for. It is in
            std and members, as white noise.
    """

    posterior: Posterior
    shift: Float[Tensor, " n"]
    info: dict[str, Any] = field(default_factory=dict)
    unresolved: float = 0.0

    @property
    def mean(self) -> Float[Tensor, " n"]:
        r"""The map."""
        return self.posterior.mean.detach() + self.shift

    def std(self, generator: Generator | None = None) -> Float[Tensor, " n"]:
        r"""Returns the std of its error."""
        own = self.posterior.std(generator=generator).detach()
        return (own.square() + self.unresolved**2).sqrt() if self.unresolved else own

    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        r"""Draws members."""
        draws = self.posterior.sample(size, generator).detach() + self.shift
        if not self.unresolved:
            return draws
        white = torch.randn(draws.shape, dtype=torch.float64, generator=generator)
        return draws + self.unresolved * white


Mapper = Callable[[Problem, Say], Mapped]


def superobs(problem: Problem, spacing: float, duration: float = 0.02) -> Problem:
    r"""Returns the problem with the data of each pass averaged over cells.

    The data of one pass (or, without passes, of one instrument within ``duration``) in a cell are
    one: their mean place, time and value. Errors are taken for independent: that of a mean of
    :math:`k` has the std over :math:`\sqrt k`.

    Arguments:
        problem: The problem.
        spacing: The width of a cell, in degrees of latitude; cells are as wide in longitude,
            in metres, at the middle of the box.
        duration: The time that tells passes apart, in days, where they are not told.

    Example:
        >>> grid = Grid(time=[0.0], lat=[0.0, 1.0], lon=[0.0, 1.0], metric="sphere")
        >>> points = Points(time=[0, 0, 0], lat=[0.1, 0.2, 0.8], lon=[0.1] * 3, metric="sphere")
        >>> values = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
        >>> superobs(Problem(grid, points, values, noise_std=1.0), 0.5).values.tolist()
        [2.0, 5.0]
    """
    points = problem.points.since(problem.grid.epoch)
    t, lat, lon = (points.axis(k) for k in ("time", "lat", "lon"))
    near = nearest_turn(lon - lon[0])
    where, counts = _cells(problem, spacing, duration)

    def mean(v: Tensor) -> Tensor:
        return torch.zeros(len(counts), dtype=torch.float64).index_add(0, where, v) / counts

    first = torch.full((len(counts),), len(where)).scatter_reduce(
        0, where, torch.arange(len(where)), "amin"
    )
    middle = lon[0] + mean(near)
    middle = torch.where(middle > 360.0, middle - 360.0, middle)
    coords = torch.stack([mean(t), mean(lat), middle], dim=-1)
    noise = problem.noise
    order = torch.argsort(coords[:, 0], stable=True)
    found = replace(
        problem,
        points=Points(coords, points.dims, metric=points.metric, epoch=points.epoch),
        values=mean(problem.values),
        noise_std=None if noise is None else (mean(noise.square()) / counts).sqrt(),
        passes=None if problem.passes is None else problem.passes[first],
        groups=None if problem.groups is None else problem.groups[first],
        known=None if problem.known is None else (mean(problem.known[0]), problem.known[1]),
    )
    return found.take(order)


def thinned(problem: Problem, spacing: float, duration: float = 0.02) -> Problem:
    r"""Returns the problem with one datum per pass and cell, that in the middle of its data.

    Averages are of a smoother field than the one that is mapped; these are not.

    Arguments:
        problem: The problem.
        spacing: The width of a cell, as in :func:`superobs`.
        duration: The time that tells passes apart, in days, where they are not told.

    Example:
        >>> grid = Grid(time=[0.0], lat=[0.0, 1.0], lon=[0.0, 1.0], metric="sphere")
        >>> points = Points(time=[0, 0, 0], lat=[0.1, 0.2, 0.8], lon=[0.1] * 3, metric="sphere")
        >>> values = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
        >>> thinned(Problem(grid, points, values), 0.5).values.tolist()
        [3.0, 5.0]
    """
    where, counts = _cells(problem, spacing, duration)
    first = counts.cumsum(0) - counts
    return problem.take(where.argsort(stable=True)[first + counts // 2].sort().values)


def _cells(
    problem: Problem, spacing: float, duration: float
) -> tuple[Int[Tensor, " m"], Int[Tensor, " c"]]:
    r"""Returns the cell of each datum, of its pass and instrument, and the data of each cell."""
    points = problem.points.since(problem.grid.epoch)
    t, lat, lon = (points.axis(k) for k in ("time", "lat", "lon"))
    wide = spacing / max(math.cos(math.radians(lat.mean().item())), 0.05)
    near = nearest_turn(lon - lon[0])
    label = (t / duration).floor().long() if problem.passes is None else problem.passes
    group = torch.zeros_like(label) if problem.groups is None else problem.groups
    cells = torch.stack([group, label, (lat / spacing).floor(), (near / wide).floor()], dim=-1)
    _, where, counts = cells.unique(dim=0, return_inverse=True, return_counts=True)
    return where, counts
