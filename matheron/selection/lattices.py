r"""Regular lattices for Markov priors: aligned with what is to be mapped, as fine as it needs."""

from __future__ import annotations

__all__ = ["COARSE", "FINENESS", "FINEST", "Spacing", "lattice", "spacing_for"]

import math
import torch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from jaxtyping import Bool, Float
from torch import Tensor
from typing import Any

from ..domain import EARTH_RADIUS, Grid, Points, nearest_turn

FINEST = 48.0
"""Steps per lengthscale to begin with: fields are interpolated between nodes, and where noise is
small beside the field, what that leaves out is seen in the std."""
FINE = 8.0
"""Steps per lengthscale that the likelihood mostly does not tell from finer ones."""
FINENESS = 4.5
"""Steps per lengthscale that are enough to map, where finer ones cost too much."""
COARSE = 3.0
"""Steps per lengthscale of a first fit in three dimensions, which are dear."""
CHEAP = 60_000
"""The number of nodes up to which steps may be finer than that."""
TINY = 10_000
"""The number of nodes up to which steps may be finer still; any finer in three dimensions."""
COARSEST = 2.2
"""The fewest steps per lengthscale: with fewer the field is not that of the equation."""
EDGE = 12
"""How many nodes the margins add to an axis of space, about."""


@dataclass(frozen=True)
class Spacing:
    r"""The steps of a regular lattice, and one node of it, by axis, in units of the axes."""

    steps: Mapping[str, float]
    origin: Mapping[str, float]


def spacing_for(
    domain: Grid | Points,
    points: Points,
    lengthscale: Sequence[float],
    most: int,
    fill: float = math.inf,
    fineness: float = FINENESS,
    free: Sequence[str] = (),
) -> Spacing | None:
    r"""Returns the spacing of a lattice that resolves some lengthscales, ``None`` if too large.

    Steps are whole multiples, or fractions, of those of the target where it is a regular grid.

    Arguments:
        domain: Where the field is wanted.
        points: Where the data are.
        lengthscale: The shortest lengthscale along each axis, in metres on the sphere.
        most: The largest number of nodes.
        fill: The largest product of that number with the nodes of a cut through the lattice:
            what a factor takes in three dimensions.
        fineness: The steps per lengthscale to begin with.
        free: The axes without a margin.

    Example:
        >>> grid = Grid(x=[0.0, 1.0, 2.0])
        >>> spacing_for(grid, grid.points, [9.0], 1000).steps
        {'x': 2.0}
    """
    spans = _spans(domain, points)
    scales = dict(zip(domain.dims, lengthscale, strict=True))
    while fineness >= COARSEST:
        aims = {k: _in_units(domain, k, scales[k] / fineness, spans) for k in domain.dims}
        steps = {k: _aligned(domain, k, aim) for k, aim in aims.items()}
        edge = {k: 1.0 if k in free else float(EDGE) for k in steps}
        count = sorted((spans[k][1] - spans[k][0]) / h + edge[k] for k, h in steps.items())
        if math.prod(count) <= _allowed(fineness, len(count), most) and _fill(count) <= fill:
            return Spacing(steps, {k: _origin(domain, k) for k in domain.dims})
        fineness /= 1.1
    return None


def _allowed(fineness: float, d: int, most: int) -> int:
    r"""Returns how many nodes a lattice may have, the fewer the finer it is."""
    if fineness <= FINENESS:
        return most
    return min(most, CHEAP if fineness <= FINE and d < 3 else TINY)


def _fill(count: Sequence[float]) -> float:
    return math.prod(count) * math.prod(count[:-1]) if len(count) > 2 else 0.0


def _origin(domain: Grid | Points, name: str) -> float:
    axis = domain.axes[name] if isinstance(domain, Grid) else domain.axis(name)
    return axis.min().item()


def _spans(domain: Grid | Points, points: Points) -> dict[str, tuple[float, float]]:
    r"""Returns the ends of what is to be covered, along each axis."""
    points = points.since(domain.epoch)
    found = {}
    for name in domain.dims:
        own = domain.axes[name] if isinstance(domain, Grid) else domain.axis(name)
        other = points.axis(name)
        if name == "lon" and domain.metric == "sphere":  # the nearest turn
            middle = (own.min() + own.max()) / 2
            other = nearest_turn(other, middle)
        both = torch.cat([own, other])
        found[name] = (both.min().item(), both.max().item())
    return found


def _in_units(
    domain: Grid | Points, name: str, length: float, spans: Mapping[str, tuple[float, float]]
) -> float:
    r"""Returns a length in the units of an axis, in degrees of the lowest latitude."""
    if domain.metric != "sphere" or name not in {"lat", "lon"}:
        return length
    degrees = math.degrees(length / EARTH_RADIUS)
    if name == "lat":
        return min(degrees, 30.0)
    low, high = spans["lat"]
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return min(degrees / max(math.cos(math.radians(nearest)), 0.05), 30.0)


def _aligned(domain: Grid | Points, name: str, aim: float) -> float:
    r"""Returns a step near ``aim`` that falls in with the nodes of the target."""
    axis = domain.axes[name] if isinstance(domain, Grid) else torch.zeros(1, dtype=torch.float64)
    gaps = axis.diff()
    if len(gaps) == 0 or (gaps - gaps[0]).abs().max() > 1e-3 * gaps[0]:
        return aim
    step = ((axis[-1] - axis[0]) / len(gaps)).item()
    slack = 0.05  # as much coarser is as good
    if step > aim:
        return step / max(math.ceil(step / aim - slack), 1)
    return step * max(math.floor(aim / step + slack), 1)


def lattice(domain: Grid | Points, points: Points, spacing: Spacing) -> Grid:
    r"""Returns the regular grid that covers what is to be mapped, and the data.

    Land is that of the target, but for the nodes around data and targets at sea.

    Example:
        >>> grid = Grid(x=[0.0, 1.0, 2.0])
        >>> lattice(grid, Points(x=[3.5]), Spacing({"x": 1.0}, {"x": 0.0})).axes["x"].tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    spans = _spans(domain, points)
    axes: dict[str, Any] = {
        k: _around(spans[k], spacing.steps[k])
        if _closes(domain, k, spans[k], spacing.steps[k])
        else _axis(spans[k], spacing.steps[k], spacing.origin[k], _bounds(domain, k))
        for k in domain.dims
    }
    whole = Grid(**axes, metric=domain.metric, epoch=domain.epoch)
    if not isinstance(domain, Grid) or domain.mask is None:
        return whole
    sea = _sea(domain, whole)
    for where in (domain.points, points):
        nodes, weights = whole.interpolation(where)
        sea[nodes.gather(1, weights.argmax(dim=1, keepdim=True))] = True
    return Grid(**axes, mask=sea.reshape(whole.shape), metric=domain.metric, epoch=domain.epoch)


def _bounds(domain: Grid | Points, name: str) -> tuple[float, float]:
    if domain.metric != "sphere" or name not in {"lat", "lon"}:
        return (-math.inf, math.inf)
    return (-90.0, 90.0) if name == "lat" else (-360.0, 360.0)


def _closes(domain: Grid | Points, name: str, span: tuple[float, float], step: float) -> bool:
    r"""Tells whether a longitude goes once around the globe."""
    if domain.metric != "sphere" or name != "lon":
        return False
    gaps = domain.axes["lon"].diff().tolist() if isinstance(domain, Grid) else []
    return span[1] - span[0] + 1.5 * max([step, *gaps]) >= 360.0


def _around(span: tuple[float, float], step: float) -> Float[Tensor, " k"]:
    count = math.ceil(360.0 / step - 1e-6)
    axis = span[0] + torch.arange(count, dtype=torch.float64) * (360.0 / count)
    return axis - 360.0 * (axis.max().item() > 360.0)


def _axis(
    span: tuple[float, float], step: float, origin: float, bounds: tuple[float, float]
) -> Float[Tensor, " k"]:
    first = math.floor((span[0] - origin) / step + 1e-6)
    last = math.ceil((span[1] - origin) / step - 1e-6)
    last = max(last, first + 1)
    axis = origin + step * torch.arange(first, last + 1, dtype=torch.float64)
    axis = torch.where((axis - origin).abs() < 1e-9 * step, origin, axis)
    return axis.clamp(*bounds).unique()


def _sea(domain: Grid, whole: Grid) -> Bool[Tensor, " n"]:
    r"""Returns the mask of the nearest node of the target, at each node of the lattice."""
    assert domain.mask is not None
    index = []
    for name, axis in whole.axes.items():
        own = domain.axes[name]
        middles = (own[1:] + own[:-1]) / 2
        index.append(torch.searchsorted(middles, axis))
    mask: Tensor = domain.mask.unflatten(0, domain.shape)
    return mask[torch.meshgrid(*index, indexing="ij")].flatten().clone()
