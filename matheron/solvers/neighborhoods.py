r"""The nodes that are mapped together, and the data that they are mapped from."""

from __future__ import annotations

__all__ = ["Neighborhood", "neighborhoods", "window_of"]

import itertools
import math
import torch

from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Tensor

from ..domain import Points
from ..priors.base import KernelPrior


@dataclass(frozen=True)
class Neighborhood:
    r"""Some nodes, and their data.

    Arguments:
        center: The time of analysis.
        place: The tile of space, by its number along each axis.
        nodes: The nodes, with shape :math:`(k)`.
        share: The weight of this neighbourhood at each node; they sum to one over all of them.
        data: The data, increasing, with shape :math:`(m)`.
    """

    center: float
    place: tuple[int, ...]
    nodes: Int[Tensor, " k"]
    share: Float[Tensor, " k"]
    data: Int[Tensor, " m"]


def window_of(prior: KernelPrior, window: float | None, tolerance: float) -> float:
    r"""Returns the half-width of the windows in time.

    If none is given, the lag from which on, up to the length of the domain, the correlation stays
    under a tolerance; infinite if it does not.
    """
    points = prior.domain.points
    if "time" not in points.dims:
        return math.inf
    if window is not None:
        return window
    at = points[torch.zeros(1, dtype=torch.long)]
    x = prior.coordinates(at)
    lags = torch.logspace(-3, 5, 1601, dtype=torch.float64)
    moved = x.repeat(len(lags), 1)
    moved[:, 0] += lags
    rho = (prior.kernel(x, moved)[0] / prior.kernel.diagonal(x)).abs()
    beyond = torch.nonzero(rho >= tolerance)
    if len(beyond) == 0:
        return lags[0].item()
    last = int(beyond[-1])
    return math.inf if last + 1 == len(lags) else lags[last + 1].item()


def neighborhoods(
    nodes: Points, data: Points, window: float, radius: float | None, every: float | None
) -> list[Neighborhood]:
    r"""Returns the neighbourhoods of a domain, by time and, with a radius, by tiles of space.

    Arguments:
        nodes: The nodes of the domain.
        data: The data, in time since the same epoch.
        window: The half-width of the windows in time.
        radius: The spacing of the tiles, or ``None`` for one.
        every: The spacing of the times of analysis, or ``None`` for those of the nodes.
    """
    tiles = _tiles(nodes, data, radius)
    found = []
    for center, at in _times(nodes, window, every):
        for place, (own, share, seen) in tiles.items():
            here = at[own]
            if not here.any():
                continue
            seen = seen if math.isinf(window) else _within(data, seen, center, window)
            found.append(Neighborhood(center, place, own[here], share[here], seen))
    return found


def _within(
    data: Points, seen: Int[Tensor, " m"], center: float, window: float
) -> Int[Tensor, " w"]:
    return seen[(data.axis("time")[seen] - center).abs() < window]


def _times(nodes: Points, window: float, every: float | None) -> list[tuple[float, Tensor]]:
    r"""Returns the times of analysis, and which nodes belong to each."""
    if "time" not in nodes.dims:
        return [(0.0, torch.ones(len(nodes), dtype=torch.bool))]
    t = nodes.axis("time")
    if every is not None:
        t = (t / every).round() * every
    elif math.isinf(window):
        t = t.mean().expand(len(t))
    centers, rank = torch.unique(t, return_inverse=True)
    return [(c, rank == k) for k, c in enumerate(centers.tolist())]


Tiles = dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]]


def _tiles(nodes: Points, data: Points, radius: float | None) -> Tiles:
    r"""Returns nodes, shares and data of each tile of space.

    Tiles stand on the corners of cubes of side ``radius``; the shares of a node are its
    multilinear weights among the corners around it.
    """
    every, seen = torch.arange(len(nodes)), torch.arange(len(data))
    x, s = _space(nodes, nodes), _space(data, nodes)
    low, reach = x.amin(dim=0), math.inf if radius is None else radius
    # along a narrow axis, as upwards on the sphere, there is one tile
    wide = x.amax(dim=0) - low > reach
    if not wide.any():
        return {(): (every, torch.ones(len(nodes), dtype=torch.float64), seen)}
    x, s = ((x - low) / reach)[:, wide], ((s - low) / reach)[:, wide]
    shares: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    cell = x.floor()
    for corner in itertools.product((0, 1), repeat=x.shape[1]):
        at = cell + torch.tensor(corner, dtype=x.dtype)
        share = (1 - (x - at).abs()).clamp(min=0).prod(dim=1)
        for place, own in _by_row(at, share > 0):
            shares.setdefault(place, []).append((own, share[own]))
    tiles = {}
    for place, parts in sorted(shares.items()):
        own, share = (torch.cat(p) for p in zip(*parts, strict=True))
        order = own.argsort()
        near = (s - torch.tensor(place, dtype=s.dtype)).abs().amax(dim=1) <= 2
        tiles[place] = (own[order], share[order], seen[near])
    return tiles


def _by_row(at: Float[Tensor, "n d"], used: Tensor) -> list[tuple[tuple[int, ...], Tensor]]:
    r"""Returns the rows that occur, and where, among those used."""
    where = torch.nonzero(used)[:, 0]
    places, rank = torch.unique(at[where].long(), dim=0, return_inverse=True)
    return [(tuple(p.tolist()), where[rank == k]) for k, p in enumerate(places)]


def _space(points: Points, domain: Points) -> Float[Tensor, "m k"]:
    r"""Returns the Cartesian coordinates of space."""
    center = domain.center if domain.metric == "sphere" else (0.0, 0.0)
    start = 1 if "time" in points.dims else 0
    return points.since(domain.epoch).cartesian(center)[:, start:]
